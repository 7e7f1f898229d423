"""What tests say of pictures of displays."""

from virtfleet_cli.rfb import BYTES_PER_PIXEL, Picture

_CHARACTER = 9 * 16


def dots(picture: Picture) -> list[bytes]:
    """Return the pixels without the byte that means nothing."""
    return [bytes(picture.pixels[n : n + 3]) for n in range(0, len(picture.pixels), BYTES_PER_PIXEL)]


def count_colours(picture: Picture) -> int:
    """Return how many colours there are; one is an empty screen."""
    return len(set(dots(picture)))


def are_alike(one: Picture, two: Picture) -> bool:
    """Tell whether they show the same, but for a cursor that blinks."""
    if (one.width, one.height) != (two.width, two.height):
        return False
    return sum(a != b for a, b in zip(dots(one), dots(two), strict=True)) <= _CHARACTER
