"""The peers that are measured beside this library: a server for each framework.

Each ``*_server`` module runs in an environment of its own that `installation` makes,
and says its port on the first line and ends when its standard input does. All of them
answer three paths, and use their session library as its documentation shows it, with
its defaults:

* ``/bare`` answers two bytes, with nothing of the session library in the way;
* ``/read`` reads ``n`` of the session, and fails if no visit was counted;
* ``/write`` adds one to ``n`` and answers what it is now.
"""
