"""Random access to the records of one split of a data set directory.

`DatasetInfo` is the content of the directory's `stattn.json`. `RecordSource` is a sequence of `ClipRecord`, each
verified by its checksums when it is read. data_prep writes the directory (`data_prep/prepare.py`), and pipeline.py
turns the records into batches.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np

from stattn_jax.data import extracted, records, tfrecord

FORMAT = 'stattn-records/2'
INFO_FILE = 'stattn.json'


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set directory.

    For each split, `splits` has the number of clips, `wanted` the number that the annotations list, and `shards` the
    number of files. `fingerprint` changes with any byte of any record, the classes and the spec.
    """

    name: str
    classes: tuple[str, ...]
    multi_label: bool
    spec: records.Spec
    splits: dict[str, int]
    wanted: dict[str, int]
    shards: dict[str, int]
    fingerprint: str

    @classmethod
    def load(cls, directory: str | os.PathLike) -> 'DatasetInfo':
        """Reads a directory's `stattn.json`.

        Raises:
          NoDataError: the directory does not exist, is not a data set, or its preparation has not finished.
          DataError: its `stattn.json` is damaged or of another version.
        """
        path = pathlib.Path(directory) / INFO_FILE
        try:
            content = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            state = 'has no stattn.json (not a data set, or not finished)' if path.parent.is_dir() else 'does not exist'
            raise tfrecord.NoDataError(
                f'data directory {os.fspath(directory)!r} {state}; '
                f'make it with `python -m data_prep.folder --out={directory} ...` (own videos) '
                f'or `python -m data_prep.synthetic --out={directory}`'
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise tfrecord.DataError(
                f'{path}: not JSON ({error}); delete it and run the same data_prep command again'
            ) from None
        if content.get('format') != FORMAT:
            raise tfrecord.DataError(
                f'{path}: format is {content.get("format")!r}, expected {FORMAT!r}; prepare the data again with this '
                'version'
            )
        return cls(
            name=content['name'],
            classes=tuple(content['classes']),
            multi_label=content['multi_label'],
            spec=records.spec_from_json(content['spec']),
            splits=content['splits'],
            wanted=content['wanted'],
            shards=content['shards'],
            fingerprint=content['fingerprint'],
        )

    def to_json(self) -> dict:
        """Returns the content of `stattn.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {'format': FORMAT, **fields, 'spec': self.spec.to_json()}

    def shard_paths(self, directory: str | os.PathLike, split: str) -> list[pathlib.Path]:
        """Returns the paths of a split's shards, in order."""
        count = self.shards[split]
        return [pathlib.Path(directory) / tfrecord.shard_name(self.name, split, i, count) for i in range(count)]


class RecordSource:
    """The records of a split as a sequence: `source[i]` reads and verifies one. Picklable and thread-safe.

    Raises:
      NoDataError: the directory or the split does not exist.
      DataError: a file is missing or damaged (the message has its name, record number and byte offset).
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        self.info = DatasetInfo.load(directory)
        self.split = split
        if split not in self.info.splits:
            raise tfrecord.NoDataError(
                f'{directory} has no split {split!r}; it has {", ".join(sorted(self.info.splits))}'
            )
        spec = self.info.spec
        visual = spec.visual if isinstance(spec, extracted.ExtractedSpec) else None
        self._absent = extracted.read_absent(directory, visual) if visual else None
        self._paths = self.info.shard_paths(directory, split)
        self._offsets = [tfrecord.read_index(path) for path in self._paths]
        self._ends = np.cumsum([len(offsets) - 1 for offsets in self._offsets])
        if self._ends[-1] != self.info.splits[split]:
            raise tfrecord.DataError(
                f'{directory}: the shards of split {split!r} hold {self._ends[-1]} records '
                f'where {INFO_FILE} says {self.info.splits[split]}; '
                f'`python -m data_prep.verify {directory}` names the shard'
            )

    def __len__(self) -> int:
        return self.info.splits[self.split]

    def __getitem__(self, number: int) -> records.ClipRecord:
        if not 0 <= number < len(self):
            raise IndexError(f'record {number} of split {self.split!r}, which has {len(self)}')
        shard = int(np.searchsorted(self._ends, number, side='right'))
        first = int(self._ends[shard - 1]) if shard else 0
        serialized = tfrecord.read_record(self._paths[shard], self._offsets[shard], int(number) - first)
        return records.decode(serialized, self.info.spec, self._absent)
