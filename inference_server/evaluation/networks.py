"""Measures by networks: LPIPS between pictures, FVD between sets of clips, and the features of parts.

Their weights are no part of this project; `fetch` gets them. LPIPS is torchmetrics', with AlexNet's weights
as torchvision keeps them in torch's own cache; the features of parts are of the same AlexNet. FVD goes by the
I3D network that was trained on Kinetics 400, as the TorchScript file `i3d_torchscript.pt` that the field
passes on. Where something is missing the measure is absent.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from scipy import linalg

from ..poseanything.checkpoints import CheckpointError
from ..poseanything.checkpoints.weights import Source, fetch_sources

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's, 244 MB, under BSD-3-Clause; trained on ImageNet, which is for research. As of all of torch's
files its checksum begins with what its name ends in."""
I3D = Source(
    repository="ByteDance/LatentSync-1.6",
    folder="",
    required=("auxiliary/i3d_torchscript.pt",),
    optional=(),
    what="I3D for FVD, about 50 MB; made of DeepMind's Kinetics I3D, which is under Apache-2.0",
)
"""One of the places that pass the file on, chosen since it tells the checksum."""
I3D_FILE = "i3d_torchscript.pt"
CONVOLUTIONS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
"""AlexNet's, by their places among torchvision's `features`: stride and padding."""
POOLED_BEFORE = (3, 6)
PIXEL_SPREAD = (0.229, 0.224, 0.225)
"""Standard deviation of the pictures that it was trained on, RGB in 0..1."""
FEATURES_SIDE = 512
"""Pixels of a picture's longer side at which AlexNet sees its parts: a limb fills about what things do in the
pictures that it was trained on."""
LEAST_CANVAS = 64
"""Pixels of a side below which a layer of AlexNet has nothing left."""
GET = "get it with: python build.py weights evaluation"
I3D_SIDE = 224
I3D_FRAMES = 10
"""The fewest frames that I3D takes."""


def weights_folder() -> Path:
    """Where the networks' own files are looked for: torch's cache of downloaded weights."""
    from torch.hub import get_dir

    return Path(get_dir()) / "checkpoints"


def absent_measures() -> dict[str, str]:
    """The measures that can't be taken here, and what each of them needs."""
    networks = ("lpips", "part_feature_drift", "fvd")
    if find_spec("torch") is None:
        return dict.fromkeys(networks, "needs the Python package torch; install it with pip")
    absent = {}
    packages = [name for name in ("torchmetrics", "torchvision") if find_spec(name) is None]
    folder = weights_folder()
    if _alexnet() is None:
        name = ALEXNET.rpartition("/")[2]
        absent = dict.fromkeys(networks[:2], f"needs AlexNet's weights, {name}, in {folder}; {GET}")
    if packages:
        absent["lpips"] = f"needs the Python packages {' and '.join(packages)}; install them with pip"
    if _i3d() is None:
        absent["fvd"] = f"needs the I3D network's weights, {I3D_FILE}, in {folder}; {GET}"
    return absent


def _i3d() -> Path | None:
    """The I3D network's file, by hand or as it was fetched."""
    folder = weights_folder()
    places = (folder / I3D_FILE, folder / I3D.required[0])
    return next((path for path in places if path.is_file()), None)


def _alexnet() -> Path | None:
    return next(iter(sorted(weights_folder().glob("alexnet-*.pth"))), None)


def describe() -> str:
    """Which weights the measures need, where they are looked for and where they come from."""
    lines = [f"Looked for in {weights_folder()}:"]
    lines += [f"  LPIPS and features of parts: {ALEXNET}", f"  FVD: {I3D.page}: {I3D.what}"]
    lines += [f"Absent: {name} {why}" for name, why in absent_measures().items()] or ["All of it is there."]
    return "\n".join(lines)


def fetch() -> None:
    """Get what is missing into torch's cache. Raises `CheckpointError`."""
    from torch.hub import download_url_to_file

    folder = weights_folder()
    if _i3d() is None:
        fetch_sources([I3D], folder)
    name = ALEXNET.rpartition("/")[2]
    if _alexnet() is None:
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{ALEXNET}: AlexNet, 244 MB; licence: BSD-3-Clause, trained on ImageNet", flush=True)
        try:
            digest = name.removesuffix(".pth").rpartition("-")[2]
            download_url_to_file(ALEXNET, str(folder / name), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{ALEXNET} can't be fetched ({error}); run the command again.") from error


def lpips(frames: np.ndarray, truth: np.ndarray) -> float:
    """LPIPS with AlexNet of uint8 [F, H, W, 3], a mean over the frames after the first; only where
    `absent_measures` doesn't name it."""
    import torch
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    a, b = (torch.from_numpy(clip[1:].copy()).movedim(-1, 1).float() / 127.5 - 1 for clip in (frames, truth))
    with torch.no_grad():
        return float(learned_perceptual_image_patch_similarity(a, b, net_type="alex"))


class Features:
    """A look of parts (`parts.Look`): what AlexNet's five layers find, as LPIPS takes it (of length 1 at each
    place), averaged over the part. Only where `absent_measures` doesn't name it.

    The part is cut out, its mean colour made that of AlexNet's training, as is all around it, and laid with
    its longer axis level, in both senses and mirrored. So where it lies, how it is turned, what is beside it
    and what colour it has on average matter little. Distances are one minus the cosine, a mean over the
    layers, 0 to 1.
    """

    def __init__(self) -> None:
        import torch

        held = torch.load(_alexnet(), map_location="cpu", weights_only=True)
        places = [f"features.{place}" for place in CONVOLUTIONS]
        self._kernels = [(held[f"{place}.weight"].float(), held[f"{place}.bias"].float()) for place in places]

    def describe(self, frame: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Of a uint8 RGB frame, the pixels of bool [H, W]: a vector of length 1."""
        import torch
        from torch.nn import functional

        picture, mask = map(torch.from_numpy, _level(frame, inside))
        picture = picture / 255 / torch.tensor(PIXEL_SPREAD)
        both = torch.cat([picture.movedim(-1, 0), mask[None]])
        turned = torch.stack([both, both.flip(1), both.flip(2), both.flip(1, 2)])
        features, mask, means = turned[:, :3], turned[:, 3:], []
        with torch.no_grad():
            for (place, (stride, padding)), kernel in zip(CONVOLUTIONS.items(), self._kernels):
                if place in POOLED_BEFORE:
                    features = functional.max_pool2d(features, 3, 2)
                features = functional.conv2d(features, *kernel, stride, padding).relu()
                share = functional.adaptive_avg_pool2d(mask, features.shape[2:])
                mean = (functional.normalize(features, dim=1) * share).sum((0, 2, 3))
                means.append(functional.normalize(mean, dim=0))
        return (torch.cat(means) / len(means) ** 0.5).numpy()

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(1 - one @ other)


def _level(frame: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A part cut out with its longer axis level, less its mean colour, float32 [h, w, 3] in -255..255, and
    where it is [h, w]; 0 elsewhere."""
    points = np.argwhere(inside)[:, ::-1].astype(np.float32)
    centre, axes = points.mean(0), np.linalg.eigh(np.cov(points, rowvar=False))[1].T[::-1]
    extents = np.abs((points - centre) @ axes.T).max(0)
    scale = FEATURES_SIDE / max(inside.shape)
    half = np.maximum(np.ceil((extents + 1) * scale), LEAST_CANVAS / 2)
    turn = scale * axes
    matrix = np.concatenate([turn, (half - 0.5 - turn @ centre)[:, None]], 1)
    size = tuple(int(2 * side) for side in half)
    cut = np.where(inside[..., None], frame - frame[inside].mean(0), 0).astype(np.float32)
    return tuple(cv2.warpAffine(each, matrix, size) for each in (cut, np.float32(inside)))


class VideoDistance:
    """FVD (Unterthiner et al., 2018) of sets of clips from the true ones; only where `absent_measures`
    doesn't name it."""

    def __init__(self, network=None):
        import torch

        self._network = torch.jit.load(_i3d(), map_location="cpu").eval() if network is None else network
        self._features: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, source: str, frames: np.ndarray) -> None:
        """A clip, uint8 [F, H, W, 3]; one of fewer than ten frames goes there and back."""
        import torch

        clip = frames
        while len(clip) < I3D_FRAMES:
            clip = np.concatenate([clip, clip[-2::-1] if len(clip) > 1 else clip])
        resized = np.stack([cv2.resize(frame, (I3D_SIDE, I3D_SIDE)) for frame in clip])
        video = torch.from_numpy(resized).movedim(-1, 0)[None].float() / 127.5 - 1
        with torch.no_grad():
            features = self._network(video, rescale=False, resize=False, return_features=True)
        self._features[source].append(features.flatten().double().numpy())

    def between(self, source: str, other: str) -> float:
        """NaN for sets of fewer than two clips. With few clips it is larger than with many: compare like with
        like."""
        one, two = np.array(self._features[source]), np.array(self._features[other])
        return frechet_distance(one, two) if min(len(one), len(two)) > 1 else float("nan")


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Between the normal distributions of two sets of features [N, D]."""
    difference = one.mean(0) - two.mean(0)
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (one, two)]
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are none below 0.
    roots = np.sqrt(np.maximum(linalg.eigvals(covariances[0] @ covariances[1]).real, 0))
    return float(difference @ difference + sum(np.trace(each) for each in covariances) - 2 * roots.sum())
