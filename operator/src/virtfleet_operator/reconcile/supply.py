"""Telling a node about an image, with what it needs as long as it has no copy.

That is the credentials of the source, and the nodes that have the image already.
"""

from virtfleet_api.vm_image import HttpSource, ImagePhase, VMImage
from virtfleet_operator.core.image_origins import Origin, find_image_origin
from virtfleet_operator.core.image_secret import parse_authorization
from virtfleet_operator.core.images import Holder, Supply, choose_peers, compile_image, copy_token, known_digest
from virtfleet_operator.core.verdict import Waiting
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.reconcile.context import Context


async def instruct_image(context: Context, node: str, image: VMImage) -> Waiting | None:
    """Tell a node that is heard about an image; Waiting when the Secret that its source needs is not there.

    Raises:
        NodeError: the node did not acknowledge it.
        KubeError: the API server does not give the Secret.
    """
    token = copy_token(context.copy_key, image.metadata.uid)
    if _is_ready(context, node, image):
        await context.fleet.put_image(node, compile_image(image, Supply(copy_token=token)))
        return None
    source = image.spec.source
    main = await _authorization(context, image, "spec.source.http", source.http)
    initrd = await _authorization(context, image, "spec.source.initrd", source.initrd)
    origin = find_origin(context, image)
    supply = Supply(
        authorization=None if isinstance(main, Waiting) else main,
        initrd_authorization=None if isinstance(initrd, Waiting) else initrd,
        copy_token=token,
        peers=choose_peers(image, node, _holders(context, image)),
        sha256=known_digest(image),
        origin=origin if isinstance(origin, Origin) and origin.node_name == node else None,
    )
    await context.fleet.put_image(node, compile_image(image, supply))
    return next((verdict for verdict in (main, initrd) if isinstance(verdict, Waiting)), None)


def find_origin(context: Context, image: VMImage) -> Origin | Waiting | None:
    """Return the disk that an image is to be copied from, or why it cannot be; None when there is nothing to copy."""
    told = {state.name for state in context.fleet if image.metadata.uid in state.images}
    return find_image_origin(image, context.catalog, told)


async def _authorization(context: Context, image: VMImage, where: str, http: HttpSource | None) -> str | Waiting | None:
    if http is None or http.secret_ref is None:
        return None
    content = await context.secrets.read(image.metadata.namespace, http.secret_ref.name)
    return parse_authorization(where, http.secret_ref.name, content)


def _is_ready(context: Context, node: str, image: VMImage) -> bool:
    state = context.fleet.node(node)
    report = state.images.get(image.metadata.uid) if state else None
    return report is not None and report.phase is ImagePhase.READY


def _holders(context: Context, image: VMImage) -> list[Holder]:
    """Return the nodes that are heard, have the image and can give it."""
    found = []
    for state in context.fleet:
        report, address = state.images.get(image.metadata.uid), context.fleet.address(state.name)
        port = state.report.copy_port if state.report else None
        if state.contact is Contact.HEARD and report and address and port:
            found.append(Holder(state.name, f"{address.rpartition(':')[0]}:{port}", report))
    return found
