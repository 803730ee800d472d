// Vectors of the processor, as GCC and Clang extend C++ by them, and sums over their lanes.
//
// No header of torch and none of Python is included by what is built on this one, so that no version of theirs can
// break the build.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES), may_alias));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), may_alias));
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t EightInts __attribute__((vector_size(32), may_alias));

INLINE Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
INLINE void store(float* to, Vec x) { *reinterpret_cast<Unaligned*>(to) = x; }
INLINE Vec& at(float* aligned) { return *reinterpret_cast<Vec*>(aligned); }
INLINE const Vec& at(const float* aligned) { return *reinterpret_cast<const Vec*>(aligned); }
INLINE Eight& eight(float* place) { return *reinterpret_cast<Eight*>(place); }
INLINE const Eight& eight(const float* place) { return *reinterpret_cast<const Eight*>(place); }
INLINE EightInts below(int count) { return EightInts{0, 1, 2, 3, 4, 5, 6, 7} < count; }
INLINE Vec all(float x) { return x - Vec{}; }
INLINE int whole_vectors(int count) { return (count + LANES - 1) / LANES * LANES; }

struct Sum {
  INLINE Vec operator()(Vec a, Vec b) const { return a + b; }
};
struct Largest {
  INLINE Vec operator()(Vec a, Vec b) const { return a > b ? a : b; }
};
struct Pick {
  int second;
  INLINE Vec operator()(Vec a, Vec b) const { return second ? b : a; }
};

// Joins neighbouring halves (quarters, pairs, single ones) of each vector: those of a come first, those of b behind.
#ifdef __AVX512F__
template <typename Join>
INLINE Vec halves(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
              __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
}
template <typename Join>
INLINE Vec quarters(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
              __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
}
template <typename Join>
INLINE Vec pairs(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
              __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31));
}
template <typename Join>
INLINE Vec singles(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
              __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));
}
#else
template <typename Join>
INLINE Vec halves(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11),
              __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15));
}
template <typename Join>
INLINE Vec quarters(Join, Vec a, Vec) {
  return a;
}  // there are none: halves are 4 lanes
template <typename Join>
INLINE Vec pairs(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13),
              __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15));
}
template <typename Join>
INLINE Vec singles(Join join, Vec a, Vec b) {
  return join(__builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14),
              __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15));
}
#endif

// One number of all lanes.
template <typename Join>
INLINE float joined(Join join, Vec x) {
  x = halves(join, x, x);
  x = quarters(join, x, x);
  x = pairs(join, x, x);
  return singles(join, x, x)[0];
}

// The sums of vectors of(0), of(1) ... of(LANES - 1), in that order.
template <typename Of>
INLINE Vec sums(Of of) {
  auto four = [&](int i) __attribute__((always_inline)) {
    const Vec low = halves(Sum(), of(i), of(4 + i));
    if constexpr (LANES == 8) return low;
    return quarters(Sum(), low, halves(Sum(), of(8 + i), of(12 + i)));
  };
  return singles(Sum(), pairs(Sum(), four(0), four(1)), pairs(Sum(), four(2), four(3)));
}

// The lanes of LANES vectors: the first of each in x[0], the second of each in x[1], and so on.
INLINE void turn(Vec* x) {
  Vec out[LANES];
  for (int half = 0; half < 2; half++)
    for (int quarter = 0; quarter < LANES / 8; quarter++) {
      Vec four[4];
      for (int i = 0; i < 4; i++) {
        four[i] = halves(Pick{half}, x[i], x[4 + i]);
        if constexpr (LANES == 16) four[i] = quarters(Pick{quarter}, four[i], halves(Pick{half}, x[8 + i], x[12 + i]));
      }
      for (int pair = 0; pair < 2; pair++) {
        const Vec left = pairs(Pick{pair}, four[0], four[1]), right = pairs(Pick{pair}, four[2], four[3]);
        for (int i = 0; i < 2; i++) out[half * LANES / 2 + quarter * 4 + pair * 2 + i] = singles(Pick{i}, left, right);
      }
    }
  for (int i = 0; i < LANES; i++) x[i] = out[i];
}

// e ** x of numbers up to 88, within 2e-7 of it, 0 below -87. By 2 ** n e ** r, the series as in Cephes' expf.
INLINE Vec exponential(Vec x) {
  const Ints tiny = x < all(-87.0f);
  x = tiny ? all(-87.0f) : x;             // which leaves NaN what it is
  const Vec rounding = all(12582912.0f);  // 1.5 * 2 ** 23: what is added to it is rounded to a whole number
  const Vec shifted = x * 1.44269504f + rounding;
  const Vec n = shifted - rounding;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec series = r * 1.9875691500e-4f + 1.3981999507e-3f;
  series = series * r + 8.3334519073e-3f;
  series = series * r + 4.1665795894e-2f;
  series = series * r + 1.6666665459e-1f;
  series = series * r + 5.0000001201e-1f;
  series = series * (r * r) + r + 1.0f;
  const Ints bits = (reinterpret_cast<const Ints&>(series) + (reinterpret_cast<const Ints&>(shifted) << 23)) & ~tiny;
  return reinterpret_cast<const Vec&>(bits);
}
