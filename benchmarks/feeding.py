"""How a run of 100 million images on 256 GPUs would be fed, reasoned from measured figures."""

import math

from benchmarks.measure import Result
from benchmarks.views import CROPS_224, OURS_224

_IMAGES, _GPUS, _GPUS_PER_MACHINE = 100_000_000, 256, 8
_GPU_RATE = 1000  # images/s of a GPU, the aim for ResNet-50 at 224 px
_FILE_BYTES = 110_000  # of a JPEG, about the mean of ImageNet's
_SHARD_BYTES = 2**30
_SHUFFLE_BUFFER = 1000  # data.shuffle_buffer's default
_CROP_BYTES = 3 * 224 * 224

_TEXT = """\
## Feeding {gpus} GPUs with {images:.0f} million images

Inputs: **measured** on one core ({hardware}; {created}; `views` above): {crops:.0f} images/s for \
decoding a JPEG and resizing its two crops, {all:.0f} images/s where the core also does the \
colours, blur and normalisation. **Assumed**: a GPU that trains on {gpu:,} images/s (ResNet-50 at \
224 px, the aim; not yet measured), files of {file:.0f} kB (about ImageNet's mean; those measured \
are smaller, and decoding takes time in proportion to pixels and bytes), {machine} GPUs to a \
machine.

- **Cores.** A GPU that makes the views itself needs {gpu:,} / {crops:.0f} = {cores:.1f} cores \
that decode and crop, {machine_cores:.0f} to a machine, beside one for each training process. If \
the CPU did everything it would be {gpu:,} / {all:.0f} = {all_cores:.0f} cores to a GPU. Hence \
`views.implementation=batched` with `data.num_workers={workers}`: loader processes decode, the \
GPU does the rest.
- **Network.** {gpu:,} images/s of {file:.0f} kB are {gpu_mb:.0f} MB/s to a GPU, \
{machine_gbit:.1f} Gbit/s to a machine and {all_gb:.0f} GB/s from storage in all; an epoch takes \
{epoch:.1f} minutes. A 25 Gbit/s link carries it; gradients want a network of their own.
- **Bus.** Two uint8 crops are {crop_kb:.0f} kB an image, {bus:.2f} GB/s to a GPU; four float32 \
views would be {factor:.0f} times that.
- **Shards.** The files are {terabytes:.0f} TB, too much for a machine's disk: tar shards of 1 \
GiB ({shard_images:,.0f} images) in object storage, {shards:,.0f} of them. {gpus} ranks with \
{workers} loader processes are {streams:,} streams, {per_stream:.1f} shards to each in an epoch: \
enough that few shards are opened by two streams. Each stream reads {stream_mb:.1f} MB/s, one \
after the other, which is what object storage and spinning disks do best.
- **Order.** Shards are permuted anew each epoch, and each stream draws among {buffer:,} images \
in memory: {buffer_gb:.1f} GB of encoded files to a machine. Images of one shard stay within one \
stream, so shards should be written in random order.
- **Draws.** A view's parameters depend on seed, epoch and image alone, not on the number of \
loader processes; that of the order does, so a run should go on with as many ranks and loader \
processes as it began with."""


def draw_feeding(views: Result | None) -> str:
    """Return the section as Markdown.

    Args:
        views: What ``views`` measured on a CPU, if it was.
    """
    if views is None:
        title = f"## Feeding {_GPUS} GPUs with {_IMAGES / 1e6:.0f} million images"
        return f"{title}\n\nReasons from what `views` measures on a CPU: not yet measured."
    rates = {figure.what: figure.value for figure in views.figures if figure.unit == "images/s"}
    crops, everything = rates[CROPS_224], rates[OURS_224]
    cores = _GPU_RATE / crops
    workers = math.ceil(cores)
    streams = _GPUS * workers
    shard_images = _SHARD_BYTES / _FILE_BYTES
    shards = _IMAGES / shard_images
    return _TEXT.format(
        gpus=_GPUS,
        images=_IMAGES / 1e6,
        hardware=views.hardware,
        created=views.created[:10],
        crops=crops,
        all=everything,
        gpu=_GPU_RATE,
        file=_FILE_BYTES / 1e3,
        machine=_GPUS_PER_MACHINE,
        cores=cores,
        machine_cores=cores * _GPUS_PER_MACHINE,
        all_cores=_GPU_RATE / everything,
        workers=workers,
        gpu_mb=_GPU_RATE * _FILE_BYTES / 1e6,
        machine_gbit=_GPU_RATE * _FILE_BYTES * _GPUS_PER_MACHINE * 8 / 1e9,
        all_gb=_GPU_RATE * _FILE_BYTES * _GPUS / 1e9,
        epoch=_IMAGES / (_GPU_RATE * _GPUS) / 60,
        crop_kb=2 * _CROP_BYTES / 1e3,
        bus=2 * _CROP_BYTES * _GPU_RATE / 1e9,
        factor=4 * 4 / 2,
        terabytes=_IMAGES * _FILE_BYTES / 1e12,
        shard_images=shard_images,
        shards=shards,
        streams=streams,
        per_stream=shards / streams,
        stream_mb=_GPU_RATE * _FILE_BYTES / workers / 1e6,
        buffer=_SHUFFLE_BUFFER,
        buffer_gb=_SHUFFLE_BUFFER * _FILE_BYTES * workers * _GPUS_PER_MACHINE / 1e9,
    )
