"""What newer versions of the host's node API offer and older ones would refuse: used where it is there.

    io.Schema(..., **offered(search_aliases=["ddim"], has_intermediate_output=True))
    io.Int.Input(..., **ADVANCED)

Seen in 0.18.1 and 0.33.0, not yet in 0.8.0: `search_aliases` (further words by which the node search finds a node),
`has_intermediate_output` (what a node shows is sent again to a page that was opened anew, though the node is no output)
and `advanced` inputs (shown on request). Their `essentials_category` is not asked for: nodes that have it count as the
host's own, without the pack's name on them.
"""

from __future__ import annotations

import inspect

from comfy_api.latest import io

INPUTS = (io.Boolean.Input, io.Combo.Input, io.Float.Input, io.Int.Input, io.String.Input)


def offered(**fields) -> dict:
    """Those of the fields of a node's schema that this host knows."""
    known = inspect.signature(io.Schema).parameters
    return {name: value for name, value in fields.items() if name in known}


# For inputs that few users need: arguments of every kind of input with a value.
ADVANCED = {"advanced": True} if all("advanced" in inspect.signature(one).parameters for one in INPUTS) else {}
