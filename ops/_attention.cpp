// Attention of float32 queries over few keys, without mask or bias: a tile of queries and all keys at a time.
//
// Letters: B images, N heads, L queries, S keys, C channels of a head, P keys rounded up to whole vectors.

#include "ops/_products.h"

namespace {

constexpr int TILE = 32;  // queries whose scores lie in the nearest cache
constexpr int MOST_KEYS = 256;

}  // namespace

// As _attention_native.py fills it.
struct AttentionCall {
  float* space;  // for each thread, 4 * P * C
  int64_t images, heads, queries, keys, parts, threads;
  View query, key, value, out;  // (B, L or S, N, C), in the backward pass `out` is its gradient
  View grad_query, grad_key, grad_value;
};

namespace {

template <int V>
struct Attention {
  static constexpr int C = V * LANES;
  const AttentionCall& call;
  const float scale;
  const int count, padded;
  alignas(64) float beyond[MOST_KEYS] = {};  // the bias that hides what is no key

  Attention(const AttentionCall& call, float scale)
      : call(call), scale(scale), count(call.keys), padded(whole_vectors(call.keys)) {
    for (int i = count; i < padded; i++) beyond[i] = -INFINITY;
  }

  void forward(int64_t image, int64_t head, int64_t first, int64_t end, float* space) const {
    const Turned<V> keys(space, call.key.of(image, head), count);
    const View q = call.query.of(image, head), v = call.value.of(image, head), out = call.out.of(image, head);
    alignas(64) float weights[TILE * MOST_KEYS];
    float shares[TILE];
    for (int64_t l = first; l < end; l += TILE) {
      const int n = std::min<int64_t>(TILE, end - l);
      dots<V>(weights, keys, q.from(l), scale, n);
      for (int i = 0; i < n; i++) shares[i] = exponentials(weights + i * padded, beyond, padded);
      spread<V>(weights, padded, v, count, n, [&](int i, const Channels<V>& sum) __attribute__((always_inline)) {
        (sum * shares[i]).store_to(out.at(l + i));
      });
    }
  }

  void backward(int64_t image, int64_t head, float* space) const {
    const int64_t matrix = int64_t(padded) * C;
    const View q = call.query.of(image, head), k = call.key.of(image, head), g = call.out.of(image, head);
    const View to_q = call.grad_query.of(image, head);
    const Turned<V> keys(space, k, count), values(space + matrix, call.value.of(image, head), count);
    float *to_keys = space + 2 * matrix, *to_values = space + 3 * matrix;
    alignas(64) float weights[TILE * MOST_KEYS], scores[TILE * MOST_KEYS];
    std::fill(to_keys, to_keys + 2 * matrix, 0.0f);
    for (int64_t l = 0; l < call.queries; l += TILE) {
      const int n = std::min<int64_t>(TILE, call.queries - l);
      dots<V>(weights, keys, q.from(l), scale, n);
      dots<V>(scores, values, g.from(l), 1.0f, n);
      for (int i = 0; i < n; i++) {
        float* row = weights + i * padded;
        const float share = exponentials(row, beyond, padded);
        for (int j = 0; j < padded; j += LANES) at(row + j) *= share;
        softmax_gradient(scores + i * padded, row, padded);
      }
      gather<V>(to_keys, nullptr, scores, padded, q.from(l), count, n);
      gather<V>(to_values, nullptr, weights, padded, g.from(l), count, n);
      spread<V>(scores, padded, k, count, n, [&](int i, const Channels<V>& sum) __attribute__((always_inline)) {
        (sum * scale).store_to(to_q.at(l + i));
      });
    }
    const View to_k = call.grad_key.of(image, head), to_v = call.grad_value.of(image, head);
    for (int i = 0; i < count; i++) {
      (Channels<V>(to_keys + i * C) * scale).store_to(to_k.at(i));
      Channels<V>(to_values + i * C).store_to(to_v.at(i));
    }
  }
};

// Runs `run(image, head, part, space)` for all, on the threads of the call.
template <int V, typename Run>
void for_all(const AttentionCall& call, int64_t parts, Run run) {
  const int64_t tasks = call.images * call.heads * parts, size = 4 * int64_t(whole_vectors(call.keys)) * V * LANES;
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t thread = 0; thread < call.threads; thread++)
    for (int64_t task = thread * tasks / call.threads; task < (thread + 1) * tasks / call.threads; task++) {
      const int64_t unit = task / parts;
      run(unit / call.heads, unit % call.heads, task % parts, call.space + thread * size);
    }
}

template <int V>
void forward(const AttentionCall& call, float scale) {
  const Attention<V> work(call, scale);
  for_all<V>(call, call.parts, [&](int64_t image, int64_t head, int64_t part, float* space) {
    work.forward(image, head, part * call.queries / call.parts, (part + 1) * call.queries / call.parts, space);
  });
}

template <int V>
void backward(const AttentionCall& call, float scale) {
  const Attention<V> work(call, scale);
  for_all<V>(call, 1, [&](int64_t image, int64_t head, int64_t, float* space) { work.backward(image, head, space); });
}

}  // namespace

// Return 0, and do nothing, for a number of channels they are not made for.
extern "C" int attention_forward(const AttentionCall* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { forward<decltype(parts)::value>(*call, scale); });
}

extern "C" int attention_backward(const AttentionCall* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { backward<decltype(parts)::value>(*call, scale); });
}
