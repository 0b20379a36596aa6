"""Return codes of the transport (rpc2.md §13).

Zero is success, positive numbers are errno values of the procedure. Negative ones are the transport's own:
warnings down to -1000, errors above -2000, and fatal ones from -2001, which end the connection.
"""

from __future__ import annotations

from enum import IntEnum

LAST_WARNING = -1000
FIRST_FATAL = -2001


class Rpc2Code(IntEnum):
    """The numbers by their names."""

    SUCCESS = 0
    OLDVERSION = -2
    INVALIDOPCODE = -3
    BADDATA = -4
    NOGREEDY = -5
    ABANDONED = -6
    CONNBUSY = -1001
    SEFAIL1 = -1002
    TOOLONG = -1003
    NOMGROUP = -1004
    MGRPBUSY = -1005
    NOTGROUPMEMBER = -1006
    DUPLICATEMEMBER = -1007
    BADMGROUP = -1008
    FAIL = -2001
    NOCONNECTION = -2002
    TIMEOUT = -2003
    NOBINDING = -2004
    DUPLICATESERVER = -2005
    NOTWORKER = -2006
    NOTCLIENT = -2007
    WRONGVERSION = -2008
    NOTAUTHENTICATED = -2009
    CLOSECONNECTION = -2010
    BADFILTER = -2011
    LWPNOTINIT = -2012
    BADSERVER = -2013
    SEFAIL2 = -2014
    DEAD = -2015
    NAKED = -2016
    SEFAIL3 = -2017
    SEFAIL4 = -2018

    @classmethod
    def name_of(cls, code: int) -> str:
        """Return the name of a code, or the number as text where there is none."""
        try:
            return cls(code).name
        except ValueError:
            return str(code)


def is_fatal(code: int) -> bool:
    """Tell whether a return code ends the connection it came on."""
    return code <= FIRST_FATAL
