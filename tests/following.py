"""A `Progress` that remembers what it was told."""

from bloodfilm.core.progress import NoProgress


class Recorder(NoProgress):
    """Keeps updates as (stage, done, total) and the issues, in order."""

    def __init__(self):
        self.updates = []
        self.issues = []

    def update(self, stage, done, total):
        self.updates.append((stage, done, total))

    def report(self, issue):
        self.issues.append(issue)

    def last(self, stage):
        """Return the last (done, total) of a stage."""
        return [u for u in self.updates if u[0] == stage][-1][1:]
