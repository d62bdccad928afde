"""The model card of a bundle: what the hub and a person read first."""

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "decoder": "shared decoder: triplane features to density and colour",
    "vae": "VAE whose features of the portrait the diffusion models see",
    "base": "base triplane diffusion, trained on {subjects} people, {step} steps",
    "upsampler": "upsampling triplane diffusion, trained on {subjects} people, {step} steps",
    "likeness": "linear model of the triplanes of {people} people, fitted to the portrait",
    "rig": "linear model of the heads of {people} people, with the 52 ARKit blend shapes",
}


def model_card(index: Mapping[str, Any]) -> str:
    """Return the card in Markdown, with the front matter that the hub reads.

    Args:
        index: of the bundle, without its files.
    """
    rows = "\n".join(
        f"| `{part}/` | {_WORDS[part].format_map(facts)} |"
        for part, facts in index["parts"].items()
    )
    version = index["code_version"]
    if "commit" in index:
        version += f", commit {index['commit']}"
    return f"""---
license: {index["license"].lower()}
library_name: triavatar
tags: [image-to-3d, avatar, triplane]
---

# {index["name"]}

3D head avatars from one portrait.

```python
from triavatar import AvatarPipeline

avatar = AvatarPipeline.from_pretrained("this folder")("portrait.jpg")
avatar.turntable("turntable.mp4")
```

| part | what it is |
|---|---|
{rows}

Written by triavatar {version}; `bundle.json` lists every file with its SHA-256.

The models know people like those they learned from: strangers who differ from them (in age, hair,
clothes, light) come out less alike. An avatar shows what is likely behind the portrait, not what is
there. Make avatars of people who agreed to it.
"""
