"""What a session keeps of a request."""

from tornado_sessions.visit import MAX_USER_AGENT, Visit, _shared


def test_sessions_of_one_browser_share_its_name():
    """P6, S9: once in memory, however many sessions there are."""
    agents = [b"Firefox", b"Firefox"]
    one, other = (
        Visit(user_agent=agent.decode()).device["user_agent"] for agent in agents
    )
    assert one is other


def test_names_of_browsers_do_not_pile_up():
    """P6: whoever makes up one after the other takes no memory for good."""
    for number in range(5000):
        name = Visit(user_agent=f"{number} " * 1000).device["user_agent"]
        assert len(name) == MAX_USER_AGENT
    assert _shared.cache_info().currsize <= 1024
