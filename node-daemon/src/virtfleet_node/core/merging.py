"""A merge of layers by QEMU, as it is kept beside them from before it begins until what follows from it is done."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label
from virtfleet_node.core.captured import LAYER_PATTERN

LayerFile = Annotated[str, Field(pattern=LAYER_PATTERN)]


class KeptMerge(Document):
    """Files of one folder: the upper layer is written into the lower one, and the child then lies on that."""

    pool: Label
    disk: Label
    lower: LayerFile
    upper: LayerFile
    child: LayerFile

    def in_folder(self, folder: Path) -> tuple[Path, Path, Path]:
        """Return lower, upper and child."""
        return folder / self.lower, folder / self.upper, folder / self.child
