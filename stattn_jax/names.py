"""Says in a message which names are known, and which of them a wrong name may stand for."""

import difflib
from collections.abc import Iterable

# With more names than this, only the nearest few are shown.
SHOWN = 20


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Returns the known names that resemble a name most, whatever their case; [] where none does."""
    folded = {each.casefold(): each for each in known}
    return [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.5)]


def expected(name: str, known: Iterable[str], kind: str = 'names') -> str:
    """Returns 'expected one of a, b, c' for a wrong name; of many names, it has their number and the nearest few."""
    names = list(dict.fromkeys(known))
    closest = near(name, names)
    hint = f' (did you mean {" or ".join(closest)}?)' if closest else ''
    if len(names) <= SHOWN:
        return f'expected one of {", ".join(names)}{hint}'
    return f'expected one of {len(names)} {kind}{hint or ", such as " + ", ".join(names[:3])}'
