"""Hosts that are there anyway as a provider: a pool that any number of state files share, by leases that lie on the hosts.

Each host is one flavor. A lease is a folder there (`leases`), in which the agent of the worker lives; giving it back ends the agent
and everything it ran, never the host. What a host was last seen with is remembered here, so that one that is off is not taken for
one without leases.
"""

from __future__ import annotations

from scitq.remote.providers.ssh.pool import Pool as Pool
from scitq.remote.providers.ssh.pool import factory as factory
