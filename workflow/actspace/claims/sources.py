"""Where claims were published: authors, year, place. A claim adds the section, or what of it is ours."""

from __future__ import annotations

SHORTFORM = "Heimersheim, LessWrong 2025: shortform on k-means and SAEs (corrected version)"
DEFINITIONS = "Heimersheim, LessWrong 2025: shortform on definitions of explained variance"
ENGELS = "Engels, LessWrong 2025: comment on Heimersheim's shortform on k-means and SAEs"
REPLY = "Heimersheim, LessWrong 2025: comment on the shortform on k-means and SAEs"
SPIKY = "Heimersheim, LessWrong 2025: shortform on spiky activation space"
LESSON = "Heimersheim, LessWrong 2025: shortform on a lesson of the Geometry of Truth paper"
MONITORING = "Heimersheim, LessWrong 2025: shortform on probes in white-box monitoring, after Hua et al., 2025"
MEMORY = "Heimersheim, LessWrong 2025: shortform on memorization as computation in superposition"
WEIGHTS = "Heimersheim, LessWrong 2025: shortform on weight linearity in parameter decomposition"
ANSWERS = "Heimersheim, LessWrong 2025: shortform on models that give the same answer"
TRUE_FEATURES = "Heimersheim, LessWrong 2024: shortform on features of the model and of SAEs"
SPLITTING = "Heimersheim, LessWrong 2024: shortform on composite features"
TINY = "Heimersheim, LessWrong 2024: shortform on TinyStories models"
IDEAS = "Heimersheim, LessWrong 2024: list of project ideas"
PLATEAU_IDEAS = f"{IDEAS} (larger: activation plateaus)"
CLUSTER_IDEAS = f"{IDEAS} (short: SAEs vs clustering)"

PLATEAUS = "Heimersheim & Mendel, LessWrong 2024: activation plateaus and sensitive directions in GPT-2"
PLATEAUS_1 = f"{PLATEAUS}, section 1 (activation plateaus)"
PLATEAUS_2 = f"{PLATEAUS}, section 2 (sensitive directions)"
PLATEAUS_3 = f"{PLATEAUS}, section 3 (local optima)"
PLATEAUS_SAE = f"{PLATEAUS}, section on SAEs"
PLATEAUS_REPLY = f"{PLATEAUS}, Heimersheim's reply to a comment"

SHARKEY = "Sharkey, LessWrong 2024: comments on his research agenda Sparsify"
SUPPRESSION = "Wright & Sharkey, LessWrong 2024: Addressing Feature Suppression in SAEs"
GEOMETRY_OF_TRUTH = "Marks & Tegmark, 2023: The Geometry of Truth (arXiv 2310.06824)"
GURNEE = "Gurnee, 2024: SAE reconstruction errors are (empirically) pathological"
LINDSEY = "Lindsey, 2024: Anthropic's April update on interpretability"
IMPROVED = "Lee & Heimersheim, 2024: Investigating Sensitive Directions in GPT-2 (arXiv 2410.12555)"
REGIONS = "Janiak et al., 2024: Characterizing stable regions in the residual stream of LLMs (arXiv 2409.17113)"
SYNTHETIC = (
    "Giglemiani et al., 2024: Evaluating Synthetic Activations composed of SAE Latents in GPT-2 (arXiv 2409.15019)"
)
DEPTH = "Shinkle, 2025: activation_plateau_mechanisms (GPT-2 large)"
