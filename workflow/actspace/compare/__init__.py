"""Studies side by side: what differs between their settings, inputs and code, and what their claims come to."""
