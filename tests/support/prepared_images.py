"""Images that a test has put onto a node itself."""

from virtfleet_api.image import Image
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools


class PreparedImages(ImageStore):
    """A store with images that are there from the beginning."""

    def __init__(self, pools: Pools, disks: DiskStore, known: dict[str, ImageFiles]) -> None:
        super().__init__(pools, disks)
        self._folder_of_all = pools.folder("default", "images")
        self.known = known

    def files(self, image_uid: str) -> ImageFiles | None:
        return self.known.get(image_uid) or super().files(image_uid)

    def become_ready(self, uid: str, files: ImageFiles) -> None:
        self.known[uid] = files
        for callback in self._callbacks:
            callback(uid)

    async def take_up(self) -> None:
        """Take up what was put here as an instruction, and leave alone what a test has made."""
        other = Image(uid="00000000-0000-4000-8000-000000000000", namespace="x", name="x", pool="default")
        for folder in self._folder_of_all.iterdir():
            if folder.is_dir() and not (folder / "image.json").exists():
                (folder / "image.json").write_text(other.model_dump_json())
        await super().take_up()
