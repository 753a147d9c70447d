"""The one error that users are meant to read."""


class StudyError(ValueError):
    """A mistake that the user can mend: one line that says what, where, and what to do."""
