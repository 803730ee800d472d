// The GELU of float32 numbers, x times the normal distribution's part P(x) below x, and its gradient in the same pass.
//
// P(-|x|) is e ** (-x * x / 2) times a series in t = 1 / (1 + SLOPE * |x|), fitted to within 1e-7 of it: to the left
// of 0 that is nearer than 1 + erf is in float32, and the exponential serves the gradient too.

#include "ops/_vectors.h"

namespace {

constexpr float SLOPE = 0.305f, DENSITY = 0.3989422804f;  // 1 / sqrt(2 * pi)
constexpr float SERIES[] = {0.12163972109556198f,  0.12246698886156082f, 0.10341959446668625f,  0.12102638930082321f,
                            -0.03798661381006241f, 0.18572837114334106f, -0.15299539268016815f, 0.03670097887516022f};
constexpr int64_t BLOCK = 1 << 14;  // numbers that a thread takes at a time

struct Part {
  Vec below, density;  // P(x), and its slope at x
};

INLINE Part part(Vec x) {
  const Vec positive = x < Vec{} ? -x : x, power = exponential(x * x * -0.5f);
  const Vec t = 1.0f / (1.0f + SLOPE * positive);
  Vec series = all(SERIES[7]);
  for (int i = 6; i >= 0; i--) series = series * t + SERIES[i];
  const Vec tail = series * t * power;
  return {x < Vec{} ? tail : 1.0f - tail, power * DENSITY};
}

}  // namespace

// Multiplies a gradient by that of the GELU of x, whose result is `out`. The numbers fill whole vectors.
extern "C" void gelu_backward(const float* x, float* gradient, float* out, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = 0; first < count; first += BLOCK)
    for (int64_t i = first; i < std::min(first + BLOCK, count); i += LANES) {
      const Vec number = load(x + i);
      const Part p = part(number);
      store(gradient + i, load(gradient + i) * (p.below + number * p.density));
      store(out + i, number * p.below);
    }
}
