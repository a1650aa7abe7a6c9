"""Which addresses an outbound connection may reach.

A host that the operator wrote into the configuration may be anywhere. Any other host (an endpoint
out of a discovery document, say) must resolve to public addresses only, and the connection goes to
the very address that was checked, so that a second look-up cannot give another one (DNS rebinding).
"""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
#: Not for hosts of the public Internet, though `is_global` of one Python version or another says so:
#: protocol assignments, 6to4 relays, site-local, segment routing, documentation (IANA's registries).
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "5f00::/16", "3fff::/20")
)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, seen through IPv6 transition forms."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None:
            return is_public(str(ip.sixtofour))
        if ip.teredo is not None:
            return is_public(str(ip.teredo[1]))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip in _NAT64_LOCAL or int(ip) >> 32 == 0:  # local NAT64, IPv4-compatible
            return False
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
