// Products of few vectors with many: of a query with its keys, of weights with values.

#pragma once

#include <type_traits>

#include "ops/_vectors.h"

// (B, positions, N, C): maps whose heads are C channels.
struct View {
  float* data;
  int64_t image, position, head;

  INLINE View of(int64_t which_image, int64_t which_head) const {
    return {data + which_image * image + which_head * head, 0, position, 0};
  }
  INLINE float* at(int64_t which) const { return data + which * position; }
  INLINE View from(int64_t which) const { return {at(which), image, position, head}; }
};

// The V * LANES channels of one vector.
template <int V>
struct Channels {
  Vec part[V];
  INLINE Channels() : part{} {}
  INLINE explicit Channels(const float* from) {
    for (int i = 0; i < V; i++) part[i] = load(from + i * LANES);
  }
  INLINE Channels operator*(float factor) const {
    Channels out;
    for (int i = 0; i < V; i++) out.part[i] = part[i] * factor;
    return out;
  }
  INLINE Channels operator+(const Channels& other) const {
    Channels out;
    for (int i = 0; i < V; i++) out.part[i] = part[i] + other.part[i];
    return out;
  }
  INLINE void add(float weight, const Channels& other) {
    for (int i = 0; i < V; i++) part[i] += weight * other.part[i];
  }
  INLINE Vec times(const float* from) const {
    Vec out = part[0] * load(from);
    for (int i = 1; i < V; i++) out += part[i] * load(from + i * LANES);
    return out;
  }
  INLINE void store_to(float* to) const {
    for (int i = 0; i < V; i++) store(to + i * LANES, part[i]);
  }
};

constexpr int TOGETHER = LANES / 4;  // vectors that share what is loaded: as many as there are registers for

// Calls `run` for groups of N, of TOGETHER behind them, and for single ones.
template <int N = TOGETHER, typename Run>
INLINE void by_groups(int count, Run run) {
  int i = 0;
  for (; i + N <= count; i += N) run(i, std::integral_constant<int, N>());
  if constexpr (N > TOGETHER)
    for (; i + TOGETHER <= count; i += TOGETHER) run(i, std::integral_constant<int, TOGETHER>());
  for (; i < count; i++) run(i, std::integral_constant<int, 1>());
}

// How many sums of V vectors there are registers for: enough that one is not waited for before it is added to again.
template <int V>
constexpr int SUMS = V <= 2 ? 2 * TOGETHER : TOGETHER;

// N weighted sums of `count` vectors; weights of one sum lie `along` apart, those of one vector `across`.
template <int V, int N>
INLINE void weighted(Channels<V>* out, const float* weights, int across, int along, const View& x, int count) {
  for (int i = 0; i < count; i++) {
    const Channels<V> vector(x.at(i));
    for (int j = 0; j < N; j++) out[j].add(weights[j * across + i * along], vector);
  }
}

// Vectors turned, one channel after the other, for products of many with all of them.
template <int V>
struct Turned {
  float* data;  // V * LANES rows of `padded`
  int padded;

  INLINE static int64_t size(int count) { return int64_t(V) * LANES * whole_vectors(count); }

  INLINE Turned(float* space, int count) : data(space), padded(whole_vectors(count)) {}

  INLINE Turned(float* space, const View& x, int count) : Turned(space, count) {
    for (int first = 0; first < padded; first += LANES)
      for (int channel = 0; channel < V * LANES; channel += LANES) {
        Vec block[LANES];
        for (int i = 0; i < LANES; i++) block[i] = first + i < count ? load(x.at(first + i) + channel) : Vec{};
        turn(block);
        for (int i = 0; i < LANES; i++) at(data + (channel + i) * padded + first) = block[i];
      }
  }

  // Products of N vectors with all: N rows of `padded` numbers.
  template <int N>
  INLINE void dots(float* out, const View& x, float scale) const {
    int i = 0;
    if constexpr (LANES == 16)
      for (; i + 4 * LANES <= padded; i += 4 * LANES) tile<N, 4>(out + i, x, scale, i);
    for (; i + 2 * LANES <= padded; i += 2 * LANES) tile<N, 2>(out + i, x, scale, i);
    for (; i < padded; i += LANES) tile<N, 1>(out + i, x, scale, i);
  }

  // Products of N vectors with the M * LANES turned ones from `place` on.
  template <int N, int M>
  INLINE void tile(float* out, const View& x, float scale, int place) const {
    Vec sum[N][M] = {};
    for (int channel = 0; channel < V * LANES; channel++)
      for (int i = 0; i < N; i++)
        for (int j = 0; j < M; j++) sum[i][j] += x.at(i)[channel] * at(data + channel * padded + place + j * LANES);
    for (int i = 0; i < N; i++)
      for (int j = 0; j < M; j++) at(out + i * padded + j * LANES) = sum[i][j] * scale;
  }
};

// Rows of `padded` products of each of `n` vectors with all that are turned.
template <int V>
INLINE void dots(float* out, const Turned<V>& with, const View& x, float scale, int n) {
  auto tiles = [&](int place, auto wide, auto high) __attribute__((always_inline)) {
    by_groups<decltype(high)::value>(n, [&](int i, auto group) __attribute__((always_inline)) {
      constexpr int N = decltype(group)::value, M = decltype(wide)::value;
      with.template tile<N, M>(out + i * with.padded + place, x.from(i), scale, place);
    });
  };
  // Tiles of as many sums as there are registers for: of more vectors where fewer turned ones are left.
  int place = 0;
  for (; place + TOGETHER * LANES <= with.padded; place += TOGETHER * LANES)
    tiles(place, std::integral_constant<int, TOGETHER>(), std::integral_constant<int, 4>());
  if constexpr (TOGETHER > 2)
    for (; place + 2 * LANES <= with.padded; place += 2 * LANES)
      tiles(place, std::integral_constant<int, 2>(), std::integral_constant<int, 8>());
  for (; place < with.padded; place += LANES)
    tiles(place, std::integral_constant<int, 1>(), std::integral_constant<int, 2 * TOGETHER>());
}

// Sums of `count` vectors for each of `n` rows of weights: calls `take` with the row and its sum.
template <int V, typename Take>
INLINE void spread(const float* weights, int padded, const View& x, int count, int n, Take take) {
  by_groups<SUMS<V>>(n, [&](int i, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    Channels<V> sum[N];
    weighted<V, N>(sum, weights + i * padded, padded, 1, x, count);
    for (int j = 0; j < N; j++) take(i + j, sum[j]);
  });
}

// The way back: to each of `count` sums, times its factor where there are factors, that of `n` vectors is added.
template <int V>
INLINE void gather(float* sums, const float* factors, const float* weights, int padded, const View& x, int count,
                   int n) {
  by_groups<SUMS<V>>(count, [&](int i, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    Channels<V> some[N];
    weighted<V, N>(some, weights + i, 1, padded, x, n);
    for (int j = 0; j < N; j++) {
      float* place = sums + (i + j) * V * LANES;
      (some[j] + Channels<V>(place) * (factors ? factors[i + j] : 1.0f)).store_to(place);
    }
  });
}

// Turns scores into e ** (score + bias - the largest), and returns what makes their sum 1.
INLINE float exponentials(float* scores, const float* bias, int padded) {
  Vec top = all(-INFINITY);
  for (int i = 0; i < padded; i += LANES) top = Largest()(top, at(scores + i) += at(bias + i));
  const float largest = joined(Largest(), top);
  Vec sum = {};
  for (int i = 0; i < padded; i += LANES) sum += at(scores + i) = exponential(at(scores + i) - largest);
  return 1.0f / joined(Sum(), sum);
}

// Turns the gradients of the weights into those of the scores. Weights beyond the last are 0.
INLINE void softmax_gradient(float* gradients, const float* weights, int padded) {
  Vec sum = {};
  for (int i = 0; i < padded; i += LANES) sum += at(weights + i) * at(gradients + i);
  const float mean = joined(Sum(), sum);
  for (int i = 0; i < padded; i += LANES) at(gradients + i) = at(weights + i) * (at(gradients + i) - mean);
}

// Calls `run` with the number of vectors that channels of a head fill; returns 0 for a number it is not made for.
template <typename Run>
int by_channels(int channels, Run run) {
  switch (channels) {
    case 16:
      return run(std::integral_constant<int, 16 / LANES>()), 1;
    case 32:
      return run(std::integral_constant<int, 32 / LANES>()), 1;
    case 48:
      return run(std::integral_constant<int, 48 / LANES>()), 1;
    case 64:
      return run(std::integral_constant<int, 64 / LANES>()), 1;
    default:
      return 0;
  }
}
