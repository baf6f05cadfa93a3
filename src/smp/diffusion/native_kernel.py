"""The C code of `smp.diffusion.native_denoiser`."""

from __future__ import annotations

from smp.diffusion.denoiser import MODULATIONS, NORM_EPS
from smp.utils.native_code import NativeKernel

LANES = 16
TILE = 2 * LANES
MAX_FRAMES = 64

# Rows of the matrices are frames. R frames share a tile of weights, so that each weight
# is loaded once per R frames. R is limited by the vector registers, which hold 2 * R
# accumulators of 16 numbers (32 registers with AVX-512; half as many, half as wide, with
# AVX2). The softmax of `attend` subtracts the maximum and pads its inputs to whole
# vectors; the sums leave the padding out.
_FUNCTIONS = f"""
typedef float V __attribute__((ext_vector_type({LANES})));
typedef float U __attribute__((ext_vector_type({LANES}), aligned(4)));
typedef int VI __attribute__((ext_vector_type({LANES})));
struct Net {{
#if defined(__AVX512F__)
  enum {{ R = 10 }};
#else
  enum {{ R = 3 }};
#endif
  static V load(const float* p) {{ return *(const U*)p; }}
  static void store(float* p, V v) {{ *(U*)p = v; }}
  // One instruction, where there is one; in software it would take a hundred times as long.
  static V multiply_add(V a, V b, V c) {{
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
  }}
  static float sum(V v) {{
    float s = 0.0f;
    for (int i = 0; i < {LANES}; ++i) s += v[i];
    return s;
  }}
  // e^x = 2^n e^r with |r| < ln(2) / 2; the Taylor series to r^7 is exact to rounding.
  static V exp(V x) {{
    x = __builtin_elementwise_min(__builtin_elementwise_max(x, (V)-80.0f), (V)80.0f);
    const VI n = __builtin_convertvector(x * 1.44269504f + 128.5f, VI) - 128;
    const V k = __builtin_convertvector(n, V);
    // ln(2) in two parts, the first exact in few bits.
    const V r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    V p = (V)(1.0f / 5040.0f);
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * __builtin_bit_cast(V, (n + 127) << 23);
  }}
  // (rows, K) times weights (N / {TILE}, K, {TILE}) plus bias (N), in three ways:
  // SET: out = it. ADD: out += gate * it. GLU: out = silu(first half of a tile) * second.
  enum {{ SET, ADD, GLU }};
  static void product(int how, const float* x, Int rows, Int K, Int N, const float* w,
                      const float* bias, const float* gate, float* out, Int ldo) {{
    for (Int c = 0; c < N; c += {TILE}, w += K * {TILE}) {{
      const V bias0 = bias ? load(bias + c) : (V)0.0f;
      const V bias1 = bias ? load(bias + c + {LANES}) : (V)0.0f;
      for (Int row = 0; row < rows; row += R) {{
        V acc[R][2];
        _Pragma("clang loop unroll(full)")
        for (int r = 0; r < R; ++r) {{ acc[r][0] = bias0; acc[r][1] = bias1; }}
        const float* from = x + row * K;
        for (Int k = 0; k < K; ++k) {{
          const V w0 = load(w + k * {TILE}), w1 = load(w + k * {TILE} + {LANES});
          _Pragma("clang loop unroll(full)")
          for (int r = 0; r < R; ++r) {{
            const V a = from[r * K + k];
            acc[r][0] = multiply_add(a, w0, acc[r][0]);
            acc[r][1] = multiply_add(a, w1, acc[r][1]);
          }}
        }}
        for (int r = 0; r < R; ++r) {{
          float* to = out + (row + r) * ldo + (how == GLU ? c / 2 : c);
          V a = acc[r][0], b = acc[r][1];
          if (how == GLU) {{ store(to, a / (1.0f + exp(-a)) * b); continue; }}
          if (how == ADD) {{
            a = load(to) + load(gate + c) * a;
            b = load(to + {LANES}) + load(gate + c + {LANES}) * b;
          }}
          store(to, a);
          store(to + {LANES}, b);
        }}
      }}
    }}
  }}
  // y = layer norm of x (rows, D), times 1 + scale, plus shift.
  static void norm(const float* x, Int rows, Int D, const float* shift,
                   const float* scale, float* y) {{
    for (Int r = 0; r < rows; ++r, x += D, y += D) {{
      V total = (V)0.0f, square = (V)0.0f;
      for (Int d = 0; d < D; d += {LANES}) total += load(x + d);
      const float mean = sum(total) / D;
      for (Int d = 0; d < D; d += {LANES}) {{
        const V c = load(x + d) - mean;
        square += c * c;
      }}
      const float inv = 1.0f / __builtin_sqrtf(sum(square) / D + {NORM_EPS}f);
      for (Int d = 0; d < D; d += {LANES})
        store(y + d, (load(x + d) - mean) * inv * (1.0f + load(scale + d)) + load(shift + d));
    }}
  }}
  // One head of size H of one window; qkv rows are 3 * D long.
  static void attend(const float* qkv, Int D, Int W, Int H, float* out) {{
    const float *keys = qkv + D, *values = qkv + 2 * D;
    const float root = 1.0f / __builtin_sqrtf((float)H);
    for (Int i = 0; i < W; ++i, out += D) {{
      float p[{MAX_FRAMES}], total = 0.0f, most = -1e30f;
      for (Int j = 0; j < W; ++j) {{
        V s = (V)0.0f;
        for (Int d = 0; d < H; d += {LANES})
          s += load(qkv + i * 3 * D + d) * load(keys + j * 3 * D + d);
        p[j] = sum(s) * root;
        most = p[j] > most ? p[j] : most;
      }}
      for (Int j = W; j < {MAX_FRAMES}; ++j) p[j] = most;
      for (Int j = 0; j < W; j += {LANES}) store(p + j, exp(load(p + j) - most));
      for (Int j = 0; j < W; ++j) total += p[j];
      for (Int d = 0; d < H; d += {LANES}) {{
        V s = (V)0.0f;
        for (Int j = 0; j < W; ++j) s += p[j] * load(values + j * 3 * D + d);
        store(out + d, s * (1.0f / total));
      }}
    }}
  }}
}};
"""

# A job is an array of 64-bit integers; these are their names in order.
FIELDS: tuple[str, ...] = (
  *("counter", "groups", "each", "block", "W", "F", "D", "heads", "layers", "inner"),
  *("padded_F", "input", "output", "modulation", "positions", "w_in", "w_out"),
  "scratch",
)
_LAYER_FIELDS = 6

# Each thread repeatedly takes the next block of windows of a group (an atomic counter)
# and computes the network on it. `h` is the residual stream, `y` its normalised copy or
# the attention's output, and `big` holds everything wider than D.
_SNIPPET = (
  _FUNCTIONS
  + "".join(f"const Int {name} = job[{i}];\n" for i, name in enumerate(FIELDS))
  + f"""
const Int most = (block * W + Net::R - 1) / Net::R * Net::R;
float* h = (float*)scratch;
float *y = h + most * D, *big = y + most * D;
const Int blocks = (each + block - 1) / block;
for (;;) {{
  const Int item = __atomic_fetch_add((Int*)counter, (Int)1, __ATOMIC_RELAXED);
  if (item >= groups * blocks) break;
  const Int group = item / blocks, first = item % blocks * block;
  const Int windows = each - first < block ? each - first : block;
  // Tiles are R rows high: the last one may hold rows of zeros.
  const Int rows = windows * W, full = (rows + Net::R - 1) / Net::R * Net::R;
  const float* x = (const float*)input + (group * each + first) * W * F;
  for (Int i = 0; i < full * F; ++i) big[i] = i < rows * F ? x[i] : 0.0f;
  Net::product(Net::SET, big, full, F, D, (const float*)w_in, nullptr, nullptr, h, D);
  for (Int r = 0; r < full; ++r)
    for (Int d = 0; d < D; ++d) h[r * D + d] += ((const float*)positions)[r % W * D + d];
  for (Int l = 0; l < layers; ++l) {{
    // Shift, scale and gate of the attention, then of the feed-forward.
    const float* m = (const float*)modulation + (l * groups + group) * {MODULATIONS} * D;
    const Int* ptr = job + {len(FIELDS)} + {_LAYER_FIELDS} * l;
    const float *qkv = (const float*)ptr[0], *merge = (const float*)ptr[1];
    const float *up = (const float*)ptr[2], *up_bias = (const float*)ptr[3];
    const float *down = (const float*)ptr[4], *down_bias = (const float*)ptr[5];
    Net::norm(h, full, D, m, m + D, y);
    Net::product(Net::SET, y, full, D, 3 * D, qkv, nullptr, nullptr, big, 3 * D);
    for (Int w = 0; w < windows; ++w)
      for (Int a = 0; a < D; a += D / heads)
        Net::attend(big + w * W * 3 * D + a, D, W, D / heads, y + w * W * D + a);
    Net::product(Net::ADD, y, full, D, D, merge, nullptr, m + 2 * D, h, D);
    Net::norm(h, full, D, m + 3 * D, m + 4 * D, y);
    Net::product(Net::GLU, y, full, D, 2 * inner, up, up_bias, nullptr, big, inner);
    Net::product(Net::ADD, big, full, inner, D, down, down_bias, m + 5 * D, h, D);
  }}
  Net::product(Net::SET, h, full, D, padded_F, (const float*)w_out, nullptr, nullptr, big,
               padded_F);
  float* out = (float*)output + (group * each + first) * W * F;
  for (Int r = 0; r < rows; ++r)
    for (Int f = 0; f < F; ++f) out[r * F + f] = big[r * padded_F + f];
}}
"""
)

KERNEL = NativeKernel("denoiser", _SNIPPET)
"""Kernel that processes a job of `FIELDS`, followed by six addresses for each layer."""
