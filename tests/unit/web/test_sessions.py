from fallow.hub.web.sessions import Sessions


def test_sessions_end_with_time_and_number():
    now = 0.0
    sessions = Sessions(limit=2, lifetime_s=10.0, clock=lambda: now)
    first = sessions.sign_in("a")
    assert sessions.token_id(first) == "a"
    now = 9.9
    second = sessions.sign_in("b")
    assert sessions.token_id(first) == "a"
    now = 10.0
    assert sessions.token_id(first) is None
    assert sessions.token_id(second) == "b"
    sessions.sign_in("c")
    sessions.sign_in("d")
    assert sessions.token_id(second) is None


def test_sign_out():
    sessions = Sessions(limit=2, lifetime_s=10.0)
    session = sessions.sign_in("a")
    sessions.sign_out(session)
    sessions.sign_out(session)
    assert sessions.token_id(session) is None
