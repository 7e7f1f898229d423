"""Plans for OVN's rows: carried out, they lead to what is wanted; made again, they say nothing."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_plans import group, of, rule
from switched_network import card, overlay, subnet
from virtfleet_api.security_group import Peer, RulePort
from virtfleet_operator.core.network.group import compile_common, compile_group
from virtfleet_operator.core.network.match import from_cidr, quoted, to_ports
from virtfleet_operator.core.network.plan import plan_changes
from virtfleet_operator.core.network.port import compile_port
from virtfleet_operator.core.network.rows import (
    COLUMNS,
    OWNER_ID,
    ROOTS,
    WEAK_LISTS,
    AddReference,
    Attachment,
    ChangePlan,
    Columns,
    Delete,
    FoundRow,
    Insert,
    RemoveReference,
    Row,
    RowKey,
    Update,
)
from virtfleet_operator.core.network.switch import compile_switch

GROUPS = ("red", "green", "blue")
Wanted = Mapping[str, Sequence[Row]]


class Rows:
    """The northbound database, as far as rows go: references, and what nothing lists is gone."""

    def __init__(self) -> None:
        self.columns: dict[RowKey, Columns] = {}
        self.lists: set[tuple[Attachment, RowKey]] = set()

    def write(self, wanted: Wanted) -> ChangePlan:
        keys = {row.key for rows in wanted.values() for row in rows}
        found = [
            FoundRow(key.name, key, columns, frozenset(place for place, child in self.lists if child == key))
            for key, columns in self.columns.items()
            if key in keys or self.owner(key) in wanted
        ]
        plan = plan_changes(wanted, found, self.columns.keys())
        for operation in plan.operations:
            self._do(operation)
        self._collect()
        return plan

    def owner(self, key: RowKey) -> str:
        ids = self.columns[key]["external_ids"]
        assert isinstance(ids, Mapping)
        return str(ids[OWNER_ID])

    def _do(self, operation: object) -> None:
        match operation:
            case Insert(key, columns):
                assert key not in self.columns
                self.columns[key] = columns
            case Update(_, key, columns):
                self.columns[key] = {**self.columns[key], **columns}
            case AddReference(parent, column, child):
                assert parent in self.columns
                assert child in self.columns
                self.lists.add((Attachment(parent, column), child))
            case RemoveReference(parent, column, child, _):
                self.lists.remove((Attachment(parent, column), child))
            case Delete(_, key):
                del self.columns[key]

    def _collect(self) -> None:
        while True:
            self.lists = {(p, c) for p, c in self.lists if p.parent in self.columns and c in self.columns}
            strong = {child for place, child in self.lists if (place.parent.table, place.column) not in WEAK_LISTS}
            band = {RowKey("Meter_Band", key.name) for key in self.columns if key.table == "Meter"}
            lost = {key for key in self.columns if key.table not in ROOTS} - strong - band
            if not lost:
                return
            for key in lost:
                del self.columns[key]


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, list[Row]]:
    """What the fleet may want at a moment, with cards whose groups or switches are not there."""
    lan = overlay("lan", *draw(st.sampled_from([(), (subnet("10.1.0.0/24"),)])))
    world = {"common": compile_common()} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        world["switch/lan"] = compile_switch(lan)
    for name in draw(st.sets(st.sampled_from(GROUPS))):
        peer = draw(st.sampled_from(GROUPS))
        rules = [{**rule("TCP/80"), "from": [of(peer)]}, rule("UDP/53")][: draw(st.integers(0, 2))]
        world[f"group/{name}"] = compile_group(group(name, peers=(f"default/{peer}",), ingress=rules))
    for number in draw(st.sets(st.integers(1, 3))):
        groups = tuple(f"{name}-of-default" for name in draw(st.sets(st.sampled_from(GROUPS))))
        world[f"port/{number}"] = compile_port(card(number, "lan", f"10.1.0.{number}", groups=groups), lan)
    return world


@given(st.lists(worlds(), min_size=1, max_size=4))
def test_any_history_leads_to_what_is_wanted(history: list[dict[str, list[Row]]]) -> None:
    rows = Rows()
    before: dict[str, list[Row]] = {}
    for world in history:
        batch = {owner: world.get(owner, []) for owner in before.keys() | world.keys()}
        rows.write(batch)
        again = rows.write(batch)
        assert again.operations == ()
        before = world
    fresh = Rows()
    fresh.write(history[-1])
    missing = {key for key in rows.columns if key not in fresh.columns}
    # A card stays while its group is not there; everything else is as if it had never been otherwise.
    assert all(key.table in ("Logical_Switch_Port", "QoS", "DNS") for key in missing)
    assert {key: fresh.columns[key] for key in fresh.columns} == {key: rows.columns[key] for key in fresh.columns}


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_writing_does_not_matter(world: dict[str, list[Row]], chance: object) -> None:
    owners = sorted(world)
    chance.shuffle(owners)  # type: ignore[attr-defined]
    rows, at_once = Rows(), Rows()
    waiting = owners
    while waiting:  # as the writer does: whoever waits is tried again when something has come
        count = len(rows.columns)
        waiting = [owner for owner in waiting if rows.write({owner: world[owner]}).waiting]
        if len(rows.columns) == count:
            break
    at_once.write(world)
    assert rows.columns.keys() == at_once.columns.keys()
    assert rows.lists == at_once.lists


@given(worlds())
def test_rows_say_all_that_is_written_of_their_table(world: dict[str, list[Row]]) -> None:
    for rows in world.values():
        for row in rows:
            assert set(row.columns) == set(COLUMNS[row.key.table])


def test_two_rows_with_one_key_become_one() -> None:
    key = RowKey("Port_Group", "sg_x")
    columns: Columns = {"name": "sg_x", "external_ids": {"virtfleet": "sg_x", "virtfleet-owner": "group/x"}}
    found = [FoundRow(uuid, key, columns, frozenset()) for uuid in ("b", "a")]
    plan = plan_changes({"group/x": [Row(key, {"name": "sg_x"})]}, found, {key})
    assert plan.operations == (Delete("b", key),)


@pytest.mark.parametrize(
    ("ports", "match"),
    [
        ([], ""),
        ([{}], "tcp"),
        ([{"port": 443}, {"port": 80}, {"port": 80, "endPort": 80}], "tcp.dst == {80, 443}"),
        ([{"port": 80}, {"port": 8000, "endPort": 8010}], "(tcp.dst == {80} || (tcp.dst >= 8000 && tcp.dst <= 8010))"),
        ([{"protocol": "SCTP", "port": 5}, {"protocol": "UDP"}], "(udp || sctp.dst == {5})"),
        ([{"protocol": "ICMP"}, {"protocol": "ICMP", "icmpType": 8}], "icmp"),
        ([{"protocol": "ICMP", "icmpType": 8, "icmpCode": 0}],
         "((icmp4.type == 8 && icmp4.code == 0) || (icmp6.type == 8 && icmp6.code == 0))"),
    ],
)  # fmt: skip
def test_ports_become_one_match(ports: list[dict[str, object]], match: str) -> None:
    assert to_ports([RulePort.model_validate(port) for port in ports]) == match


@pytest.mark.parametrize("text", ['x" || 1 || "', "a b", "", "x" * 300, "$x", "\n"])
def test_a_text_that_is_no_name_gets_nowhere(text: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        quoted(text)


@pytest.mark.parametrize(
    ("peer", "match"),
    [
        ({"cidr": "10.0.0.7/8"}, "(ip4.src == 10.0.0.0/8)"),
        ({"cidr": "10.0.0.7"}, "(ip4.src == 10.0.0.7)"),
        ({"cidr": "0.0.0.0/0"}, "(ip4)"),
        ({"cidr": "::/0", "except": ["fd00::/8", "10.0.0.0/8"]}, "(ip6 && ip6.src != {fd00::/8})"),
    ],
)
def test_ranges_become_matches(peer: dict[str, object], match: str) -> None:
    assert from_cidr("src", Peer.model_validate(peer)) == match


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0", "fd00::/129", "10.0.0.1 || 1", "$sg_ip4"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        from_cidr("src", Peer.model_construct(cidr=text, except_=()))
