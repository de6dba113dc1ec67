"""What the table says of a network: the four kinds of entry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Its name, one line of what it allows, and where it can be read."""

    name: str
    allows: str
    url: str


@dataclass(frozen=True)
class File:
    """A file of a repository: path, size in bytes, sha256. Nothing but these files is ever fetched."""

    path: str
    bytes: int | None = None
    sha256: str | None = None

    @property
    def installed(self) -> str:
        """Its path once it is installed: half-precision files take the name the libraries look for by default."""
        return self.path.replace(".fp16.", ".")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Where it may lie in a repository or folder: people export in either precision."""
        half = self.installed.replace(".safetensors", ".fp16.safetensors")
        return tuple(dict.fromkeys((self.path, self.installed, half)))


@dataclass(frozen=True)
class Repository:
    """`owner/name` on the Hugging Face hub, at a commit; without one, its newest state."""

    id: str
    revision: str | None = None

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.id}"


@dataclass(frozen=True)
class Network:
    """One public checkpoint.

    kind: how it is made ready. "diffusers" is copied; "mvdream", "zero123", "stable-zero123", "one2345", "clip",
    "clip-text" and "uni3d" are converted. repositories: tried in this order. left_hub: the repository it was first
    published in, if that is gone. gated: its terms have to be accepted on the hub by a logged-in user. download, ready:
    gigabytes, rounded, of the files to fetch and of what they become. tokenizer: the network whose tokenizer it uses,
    where it brings none.
    """

    name: str
    kind: str
    stage: str
    licence: Licence
    repositories: tuple[Repository, ...]
    files: tuple[File, ...]
    ready: float
    download: float | None = None
    gated: bool = False
    left_hub: str | None = None
    tokenizer: str | None = None
