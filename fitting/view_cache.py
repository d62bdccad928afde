"""Pictures of the subjects that stage 1 goes back to."""

from __future__ import annotations

from captures.multiview import MultiViewSet, Views
from fitting.ray_pool import RayPool


class ViewCache:
    """Pictures of the subjects, read once; small sets stay in memory between visits."""

    def __init__(self, data: MultiViewSet, size: int | None, device, limit: int = 64):
        self.data, self.size, self.device, self.limit = data, size, device, limit
        self._train: dict[str, RayPool] = {}

    def train(self, name: str) -> RayPool:
        if name not in self._train:
            if len(self._train) >= self.limit:
                self._train.pop(next(iter(self._train)))
            frames = self.data.split_views("train", name)
            views = self.data.load(name, frames, self.size)
            self._train[name] = RayPool(views, self.device)
        return self._train[name]

    def test(self, name: str) -> Views | None:
        frames = self.data.split_views("test", name)
        return self.data.load(name, frames, self.size) if frames else None
