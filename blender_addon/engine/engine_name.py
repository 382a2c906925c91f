"""The identifier of the render engine “Effigy”."""

from typing import Final

ENGINE: Final = "EFFIGY"
