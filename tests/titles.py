"""The bundled workflows' titles in the template browser, as `web/templates.js` has them."""

from __future__ import annotations

import re

from devtools.environment import ROOT

SCRIPT = ROOT / "web" / "templates.js"
TITLED = re.findall(r'^  (\w+): "(.+)",$', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)  # (workflow, title)
