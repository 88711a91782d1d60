"""A timm VisionTransformer with fewer tokens, as ztp-search has found it.

It needs torch and timm alone: create_model() for timm's own weights, or with checkpoint_path="…",
or prune(model) for a model that you have loaded. Images are prepared as DATA says.
"""

import math

import timm
import torch
from torch.nn.functional import normalize

# --- the configuration
NAME, KWARGS = "vit_tiny_patch16_224", {}
DATA = {}
LAYERS = {}
PREFIX, CLASS_TOKEN = 1, True
V_MIN, V_MAX = 0.01, 12.5
PARTITION, FEATURES, METRIC, ORDER = "sequential-u", "key", "cosine", "i'-s-i"
AGGREGATION, SIMILAR, SIZES = "eir", "drop", "ignore"
# ---


def create_model(pretrained=True, **kwargs):
    """The pruned model; arguments are those of timm.create_model."""
    pretrained = pretrained and "checkpoint_path" not in kwargs
    return prune(timm.create_model(NAME, pretrained=pretrained, **{**KWARGS, **kwargs}).eval())


def prune(model):
    """Have a timm VisionTransformer reduce its tokens from the next forward on."""
    sizes = {}  # how many patches each token stands for, of the forward at work
    model.blocks[0].register_forward_pre_hook(lambda *_: sizes.clear())
    for number, layer in LAYERS.items():
        Layer(model.blocks[number - 1], sizes, *layer)
        if SIZES == "track" and number == min(LAYERS):
            for block in model.blocks[number:]:
                block.attn.register_forward_pre_hook(proportional(sizes), with_kwargs=True)
    return model


def proportional(sizes):
    """Attention by size, as ToMe has it: the log of sizes is added to its logits."""

    def hook(attn, args, kwargs):
        if "tokens" not in sizes:
            return None
        row = sizes["tokens"].log()[:, None, None, :]
        kind = row.device.type
        auto = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if auto else args[0].dtype
        return args, {**kwargs, "attn_mask": row.to(dtype)}

    return hook


class Layer:
    """One pruning layer, at work behind a block."""

    def __init__(self, block, sizes, s_tokens, left, iterations, merged):
        self.sizes = sizes
        self.s_tokens, self.left, self.iterations, self.merged = s_tokens, left, iterations, merged
        self.attention = self.features = None
        attn = block.attn
        attn.fused_attn = attn.fused_attn and not iterations  # probabilities are looked at
        attn.attn_drop.register_forward_hook(self.see("attention", lambda out: out))
        heads = self.see("features", lambda out: out.transpose(1, 2).flatten(2))
        if FEATURES == "key":
            attn.k_norm.register_forward_hook(heads)
        if FEATURES == "query":
            attn.q_norm.register_forward_hook(heads)
        if FEATURES == "value":
            attn.qkv.register_forward_hook(self.see("features", lambda out: out.chunk(3, -1)[2]))
        block.register_forward_hook(self.end)

    def see(self, name, read):
        return lambda module, args, out: setattr(self, name, read(out))

    def end(self, block, args, x):
        """The block's output without the tokens that go, or with these in others."""
        if FEATURES == "x":
            self.features = x
        alive = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        kept, gone, into = self.reduce(alive)
        self.attention = self.features = None
        out = take(x, kept)
        sizes = self.sizes.get("tokens", torch.ones(x.shape[:2], device=x.device))
        mine = sizes.gather(1, kept)
        if gone.shape[1]:  # means, weighted by size
            places = torch.arange(kept.shape[1], device=x.device)[None, :, None]
            weights = (into[:, None, :] == places) * sizes.gather(1, gone)[:, None, :]
            total = mine + weights.sum(-1)
            weights = (weights / total[..., None]).to(x.dtype)
            own = (mine / total)[..., None].to(x.dtype)
            with torch.autocast(x.device.type, enabled=False):
                out, mine = out * own + weights @ take(x, gone), total
        if SIZES == "track" and (gone.shape[1] or self.sizes):
            self.sizes["tokens"] = mine
        return out

    def reduce(self, alive):
        """Positions of the tokens that stay; of those that are merged; and the places they go to.

        alive: of all tokens, (B, N).
        """
        everyone = torch.arange(alive.shape[1], device=alive.device).expand(alive.shape)
        n, moves, ranks = alive.shape[1] - PREFIX, [], None
        some_left = self.left + (self.s_tokens if ORDER == "i-s" else 0)
        for stage in ("s", "i") if ORDER == "i'-s-i" else ("i", "s"):
            if stage == "s" and self.s_tokens:  # of one half, those most alike one of the other
                order = alive_first(alive)[:, PREFIX : PREFIX + n]
                if ranks is None and PARTITION not in ("position", "random"):
                    ranks = self.importance(alive, 1, alive.shape[1] - PREFIX > n)
                gone, into = self.closest(*partition(order, ranks), self.s_tokens)
                moves += [(gone, into)] if SIMILAR == "merge" else []
                n -= self.s_tokens
            elif stage == "i" and some_left < n:  # the least important
                ranks = self.importance(alive, self.iterations, alive.shape[1] - PREFIX > n)
                order = descending(ranks.masked_fill(~alive, -math.inf)[:, PREFIX:]) + PREFIX
                gone, n_before, n = order[:, some_left:], n, some_left
                if self.merged:
                    away, stay = order[:, n:n_before], order[:, :n]
                    moves.append(self.closest(away, stay, self.merged))
            else:
                continue
            alive = alive.scatter(1, gone, torch.zeros_like(gone, dtype=torch.bool))
        kept = alive_first(alive)[:, : PREFIX + n]
        if not moves:
            return kept, kept[:, :0], kept[:, :0]
        gone, into = (torch.cat(each, dim=1) for each in zip(*moves, strict=True))
        if len(moves) == 2:  # what a token has taken in goes along with it
            into = everyone.scatter(1, *moves[1]).gather(1, into)
        places = (alive.long().cumsum(1) - 1).masked_fill(~alive, -1)
        return kept, gone, places.gather(1, into)

    def importance(self, alive, iterations, masked):
        """Weighted PageRank on the attention graph of the tokens that are alive, (B, N)."""
        attention = self.attention.to(torch.promote_types(self.attention.dtype, torch.float32))
        tiny = torch.finfo(attention.dtype).tiny
        start = alive.to(attention.dtype)
        if CLASS_TOKEN:
            first = start.sum(-1).sqrt()[:, None] * start[:, :1]
            start = torch.cat([first, start[:, 1:]], dim=-1)
        scores = (start / start.sum(-1, keepdim=True))[:, None, None, :]
        scores = scores.expand(-1, attention.shape[1], -1, -1)
        mask = alive[:, None, None, :].to(attention.dtype)
        weights = 1.0
        if masked:
            weights = mask / (attention * mask).sum(-1)[:, :, None].clamp_min(tiny)
        for _ in range(iterations):
            scores = (scores * weights) @ attention
        scores = (scores * mask).squeeze(2)
        scores = scores / scores.sum(-1, keepdim=True).clamp_min(tiny)
        patches = mask.squeeze(2).clone()
        patches[..., :PREFIX] = 0.0
        count = patches.sum(-1)
        relative = scores / ((scores * patches).sum(-1) / count).clamp_min(tiny)[..., None]
        variance = ((relative - 1.0).square() * patches).sum(-1) / count
        heads = (variance >= V_MIN) & (variance <= V_MAX)
        heads = heads | ~heads.any(-1, keepdim=True)  # where none counts, all do
        m = heads.to(scores.dtype)[..., None]
        return AGGREGATIONS[AGGREGATION](scores, m)

    def closest(self, mine, others, count):
        """The `count` tokens of `mine` that are most alike one of `others`, and which it is."""
        features = self.features.to(torch.promote_types(self.features.dtype, torch.float32))
        alike, match = METRICS[METRIC](take(features, mine), take(features, others))
        best = descending(alike)[:, :count]
        return mine.gather(1, best), others.gather(1, match.gather(1, best))


def partition(order, ranks):
    """The half of the tokens that may go, and the half that they are compared with."""
    n = order.shape[1]
    if PARTITION == "random":
        import numpy

        fixed = torch.from_numpy(numpy.random.default_rng(n).permutation(n))
        order = order[:, fixed.to(order.device)]
    elif PARTITION != "position":
        order = order.gather(1, descending(ranks.gather(1, order)))
    if PARTITION in ("alternate", "position"):
        return order[:, 1::2], order[:, 0::2]
    if PARTITION == "sequential-i":
        return order[:, : n // 2], order[:, n // 2 :]
    return order[:, n - n // 2 :], order[:, : n - n // 2]


AGGREGATIONS = {
    "eir": lambda scores, m: ((scores.square() * m).sum(1) / m.sum(1)).sqrt(),
    "mean": lambda scores, m: (scores * m).sum(1) / m.sum(1),
    "max": lambda scores, m: (scores * m).amax(1),
}


def cosine(a, b):
    return (normalize(a, dim=-1) @ normalize(b, dim=-1).transpose(1, 2)).max(-1)


def euclidean(a, b):
    squares, match = (b.square().sum(-1)[:, None] - 2.0 * (a @ b.transpose(1, 2))).min(-1)
    return -(squares + a.square().sum(-1)), match


def manhattan(a, b):
    least, match = torch.cdist(a, b, p=1.0).min(-1)
    return -least, match


METRICS = {"cosine": cosine, "euclidean": euclidean, "manhattan": manhattan}


def descending(values):
    return values.argsort(dim=-1, descending=True, stable=True)


def alive_first(alive):
    return descending(alive.to(torch.uint8))


def take(x, positions):
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    rows = x.flatten(0, 1).index_select(0, (positions + first).flatten())
    return rows.view(*positions.shape, -1)
