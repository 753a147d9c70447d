"""Hold a crate to the Process Run profile with roc-validator, offline: `validate_crate.py CRATE CONTEXT`; runs where that is installed.

CONTEXT is the JSON-LD context that the rocrate library brings along; it stands in for those that the validator would fetch."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from rocrate_validator import services
from rocrate_validator.utils.http import HttpRequester

path, context = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
answer = SimpleNamespace(
    status_code=200, headers={"Content-Type": "application/ld+json"}, json=lambda: context, text=json.dumps(context)
)
HttpRequester.get = lambda self, url, **_: answer
found = services.validate(
    {"rocrate_uri": path, "profile_identifier": "process-run-crate", "requirement_severity": "REQUIRED"}
)
print(*(f"{issue.check.identifier}: {issue.message}" for issue in found.get_issues()), sep="\n")
sys.exit(not found.passed())
