"""Settings: frozen dataclasses, read from TOML and from `--section.key value`, and written back as TOML.

A settings class is a frozen dataclass whose fields are scalars (str, int, float, bool, Path, Literal), one of
these or None, lists or tuples or dicts of them, and other settings classes. A field's key is its name, dotted
below its section's: `optim.lr` is `lr` under `[optim]` and `--optim.lr`. A field annotated `Annotated[Other, FLAT]`
puts Other's keys beside its own. A field `tasks: tyro.conf.Fixed[dict[str, Other]]` takes sections of Other's keys
under names of the user's, [tasks.NAME]; only files and Python can give them. In a field that may be None, the word
`none` is None. The string under a field is its help text. What a class cannot be, it says by raising ConfigError from
`__post_init__`.
"""

from bothways.config.common import Common
from bothways.config.fields import FLAT
from bothways.config.flags import load
from bothways.config.toml import from_dict, from_toml, to_toml

__all__ = ["FLAT", "Common", "from_dict", "from_toml", "load", "to_toml"]
