"""An avatar that takes expressions: its field, the registered head, and pictures of both.

Legend: N views, H W picture size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from captures.cameras import Cameras
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings
from renderer.samples import Rendered
from runtime.progress import progress
from triavatar.export.field import Field
from triavatar.export.surface import extract_surface, simplify
from triavatar.rig.bend import render_posed
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import HeadModel
from triavatar.rig.head_texture import measure_eyes
from triavatar.rig.moving import MovingAvatar
from triavatar.rig.register import register
from triavatar.rig.rigged import RiggedHead

SURFACE_CELLS, SURFACE_TRIANGLES = 128, 20000
"""How finely hair and clothes are followed."""
REST = Expression()


@dataclass(frozen=True)
class Poser:
    """Renders an avatar in expressions.

    Attributes:
        field: its triplane.
        moving: its head and what is around it.

    Example:
        >>> poser = Poser.of(avatar.planes, avatar.decoder, find_head_model())
        >>> poser.pictures(cameras, parse_expression("jawOpen=0.6,eyeBlinkLeft"))
    """

    field: Field
    moving: MovingAvatar

    @classmethod
    def of(
        cls,
        planes: Tensor,
        decoder: TriplaneDecoder,
        model: HeadModel,
        settings: RenderSettings | None = None,
    ) -> Poser:
        """Register the head model to a triplane: seconds.

        Raises:
            UserError: the avatar is empty, or a package is missing.
        """
        field = Field.of(planes.float(), decoder, settings or RenderSettings(steps=512))
        surface = simplify(extract_surface(field, SURFACE_CELLS), SURFACE_TRIANGLES)
        return cls(field, MovingAvatar.of(rig_head(model, field), surface))

    def render(
        self, cameras: Cameras, expression: Expression, background: Tensor | float = 1.0
    ) -> Rendered:
        """Render N views in an expression; see :func:`triavatar.rig.bend.render_posed`."""
        return render_posed(self.field, self.moving, cameras, expression, background)

    def pictures(
        self,
        cameras: Cameras,
        expressions: Expression | Sequence[Expression],
        *,
        background: float = 1.0,
        alpha: bool = False,
        desc: str = "render",
    ) -> np.ndarray:
        """Pictures, uint8 [N, H, W, 3 | 4], with a progress bar.

        Args:
            cameras: N views, or one for all expressions.
            expressions: one for all views, or N.
            background: grey level.
            alpha: leave the background out: colours with straight alpha.
            desc: what the bar says.
        """
        one = isinstance(expressions, Expression)
        count = len(cameras) if one else len(expressions)
        out = []
        for i in progress(range(count), desc=desc, unit="view", disable=count < 4, leave=False):
            camera = cameras[i if len(cameras) > 1 else 0]
            face = expressions if one else expressions[i]
            seen = self.render(camera, face, 0.0 if alpha else background)
            color, opacity = seen.color[0].numpy(), seen.opacity[0].numpy()[..., None]
            if alpha:
                straight = np.minimum(color / np.maximum(opacity, 1e-4), 1)
                color = np.concatenate([straight, np.clip(opacity, 0, 1)], axis=-1)
            out.append((color * 255 + 0.5).astype(np.uint8))
        return np.stack(out)


def rig_head(model: HeadModel, field: Field) -> RiggedHead:
    """Register the head model to an avatar and measure its irises."""
    head = RiggedHead(model, register(model, field))
    return replace(head, eyes=measure_eyes(head, field))
