from tests.conformance.drain.world import event


def test_two_profiles_that_are_one_person_there_are_counted_and_never_sent_at_once(
    make_world,
) -> None:
    world = make_world()
    first, second = event("ann"), event("bea")
    # Another key to us, the same email to the destination.
    world.put(first, second._replace(profile=first.profile))

    world.drain()

    assert [len(sending.users) for sending in world.sendings] == [1, 1]
    assert world.store.counts["shared_identity|enter"] == 1
