"""What people lack who are read back, person after person."""

from segrelay.ops.state.read_backs import FORGOTTEN_AFTER, MissingAttribute, ReadBacks


def test_what_people_lack_is_counted_until_one_has_it():
    found = ReadBacks()

    found.add("enter", ["name", "c_status"], {"c_status"}, 1_000)
    found.add("enter", ["name", "c_status"], {"c_status"}, 2_000)
    missing = dict(found.missing)
    found.add("enter", ["name", "c_status"], set(), 3_000)

    assert missing == {"c_status": MissingAttribute("enter", 2, 1_000)}
    assert (found.read, found.missing) == (3, {})


def test_what_is_left_out_of_the_template_is_forgotten_after_some_people():
    found = ReadBacks(missing={"c_status": MissingAttribute("enter", 2, 1_000)})

    for _ in range(FORGOTTEN_AFTER - 1):
        found.add("enter", ["name"], set(), 2_000)
    before = dict(found.missing)
    found.add("enter", ["name"], set(), 3_000)

    assert before["c_status"].people == 2
    assert found.missing == {}


def test_an_attribute_that_is_sent_again_counts_on():
    found = ReadBacks(missing={"c_status": MissingAttribute("enter", 1, 1_000, unsent=9)})

    found.add("enter", ["c_status"], {"c_status"}, 2_000)

    assert found.missing == {"c_status": MissingAttribute("enter", 2, 1_000)}


def test_redis_keeps_it_as_text():
    found = ReadBacks(3, {"c_a": MissingAttribute("enter", 1, 5)}, 2, "no connection")

    assert ReadBacks.loads(found.dumps()) == found
    assert ReadBacks.loads(b"") == ReadBacks()
