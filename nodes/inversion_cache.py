"""The node that shows which inversions are cached on disk, and deletes them."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.temporary import Litter
from ..ei2.wording import file_size, plural
from ..host import inversion_cache as cache
from ..host.folders import find_litter, inversions_folder, sweep
from ..host.newer import searchable
from ..host.ui import shown


class InversionCache(io.ComfyNode):
    """Shows and clears the cache."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_InversionCache",
            display_name="EI2 Inversion Cache",
            category="EI2/advanced",
            description="Shows how many inversions EI2 Invert keeps on disk and where, and can delete them. Above "
            "2000 MB the least recently used ones are deleted automatically. The environment variable "
            "EI2_CACHE_MB sets another limit; 0 keeps none.",
            **searchable("clear cache, delete inversions, disk space"),
            inputs=[
                io.Boolean.Input(
                    "clear",
                    default=False,
                    label_on="delete all",
                    label_off="only look",
                    tooltip="Deletes all kept inversions, and leftovers of inversions, tunes and snapshots whose "
                    'writing was cut off when ComfyUI was killed. While it is set to "delete all", every run '
                    "deletes whatever it finds.",
                )
            ],
            outputs=[io.String.Output(display_name="report", tooltip="Number, size and folder.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clear) -> str | float:
        """Changes with the cache; deleting is done in every run."""
        return float("nan") if clear else f"{cache.usage()} {find_litter()}"

    @classmethod
    def execute(cls, clear) -> io.NodeOutput:
        if clear:
            report = f"deleted {cache.clear()}{leftovers(sweep())}; left: {cache.usage()}"
        else:
            most = f"at most {cache.limit() / 1e6:.0f} MB are kept"
            report = f"{cache.usage()}{leftovers(find_litter())}; {most}, in {inversions_folder()}"
        return io.NodeOutput(report, ui=shown(cls, text=report))


def leftovers(litter: Litter) -> str:
    """The report's text on leftovers; empty if there are none."""
    found = f", {plural(litter.entries, 'leftover')} of interrupted writing, {file_size(litter.size)}"
    return found if litter.entries else ""
