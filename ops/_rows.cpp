// Rows of float32 numbers: their layer norms, the gradients of those in one pass, and the sums of columns.
//
// Numbers of a row fill whole vectors. What is summed over rows is summed over blocks of them first, by each thread for
// its own part of the rows.

#include "ops/_vectors.h"

namespace {

constexpr int TOGETHER = 4;  // rows that share what is loaded of a weight or a sum
constexpr int64_t BLOCK = 64;

}  // namespace

// As _rows.py fills it. Any may be null but x, weight, out, grad and, in the backward pass, moments.
struct NormCall {
  const float *x, *branch, *factors;  // (rows, columns), twice, and (images): what is normed is x + branch * factor
  const float *weight, *bias;         // (columns)
  float *moments, *sum, *out;         // (rows, 2): mean and 1 / deviation; (rows, columns), of x + branch and its norm
  const float *grad_sum, *grad;       // of sum and out
  float *grad_x, *grad_branch, *grad_weight, *grad_bias;
  float* space;  // `2 * columns` for each thread
  int64_t rows, columns, images, threads;
};

struct SumCall {
  const float* x;  // (rows, columns)
  float *out, *space;
  int64_t rows, columns, threads;
};

namespace {

// Adds the vectors that `of` gives for each column.
template <typename Of>
INLINE float row_sum(int64_t columns, Of of) {
  Vec sum[4] = {};
  int64_t c = 0;
  for (; c + 4 * LANES <= columns; c += 4 * LANES)
    for (int i = 0; i < 4; i++) sum[i] += of(c + i * LANES);
  for (; c < columns; c += LANES) sum[0] += of(c);
  return joined(Sum(), (sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE float factor(const NormCall& call, int64_t row) {
  return call.factors ? call.factors[row * call.images / call.rows] : 1.0f;
}

INLINE void norm_row(const NormCall& call, int64_t row, float eps) {
  const int64_t columns = call.columns;
  const float* x = call.x + row * columns;
  if (call.branch) {
    const float *branch = call.branch + row * columns, times = factor(call, row);
    float* sum = call.sum + row * columns;
    for (int64_t c = 0; c < columns; c += LANES) store(sum + c, load(x + c) + load(branch + c) * times);
    x = sum;
  }
  const float mean = row_sum(columns, [&](int64_t c) { return load(x + c); }) / columns;
  const float variance = row_sum(columns,
                                 [&](int64_t c) {
                                   const Vec centred = load(x + c) - mean;
                                   return centred * centred;
                                 }) /
                         columns;
  const float scale = 1.0f / std::sqrt(variance + eps);
  if (call.moments) {
    call.moments[2 * row] = mean;
    call.moments[2 * row + 1] = scale;
  }
  float* out = call.out + row * columns;
  for (int64_t c = 0; c < columns; c += LANES) {
    const Vec normal = (load(x + c) - mean) * scale * load(call.weight + c);
    store(out + c, call.bias ? normal + load(call.bias + c) : normal);
  }
}

// The gradients of N rows; those of the weight and the bias are added to what `sums` holds.
template <int N>
INLINE void norm_backward_rows(const NormCall& call, int64_t row, float* sums) {
  const int64_t columns = call.columns;
  const float *x[N], *grad[N];
  Vec mean[N], scale[N], plain[N], leaning[N];
  for (int i = 0; i < N; i++) {
    x[i] = call.x + (row + i) * columns;
    grad[i] = call.grad + (row + i) * columns;
    mean[i] = all(call.moments[2 * (row + i)]);
    scale[i] = all(call.moments[2 * (row + i) + 1]);
    plain[i] = leaning[i] = Vec{};
  }
  for (int64_t c = 0; c < columns; c += LANES) {
    const Vec weight = load(call.weight + c);
    Vec to_weight{}, to_bias{};
    for (int i = 0; i < N; i++) {
      const Vec given = load(grad[i] + c), normal = (load(x[i] + c) - mean[i]) * scale[i], weighted = given * weight;
      to_weight += given * normal;
      to_bias += given;
      plain[i] += weighted;
      leaning[i] += weighted * normal;
    }
    store(sums + c, load(sums + c) + to_weight);
    store(sums + columns + c, load(sums + columns + c) + to_bias);
  }
  if (!call.grad_x && !call.grad_branch) return;
  for (int i = 0; i < N; i++) {
    const int64_t start = (row + i) * columns;
    const Vec middle = all(joined(Sum(), plain[i]) / columns), slope = all(joined(Sum(), leaning[i]) / columns);
    const float times = factor(call, row + i);
    for (int64_t c = 0; c < columns; c += LANES) {
      const Vec normal = (load(x[i] + c) - mean[i]) * scale[i];
      Vec to_x = (load(grad[i] + c) * load(call.weight + c) - middle - normal * slope) * scale[i];
      if (call.grad_sum) to_x += load(call.grad_sum + start + c);
      if (call.grad_x) store(call.grad_x + start + c, to_x);
      if (call.grad_branch) store(call.grad_branch + start + c, to_x * times);
    }
  }
}

// Adds N vectors of each row to `sums`.
template <int N>
INLINE void add_columns(const float* x, int64_t rows, int64_t columns, float* sums) {
  Vec sum[N] = {};
  for (int64_t row = 0; row < rows; row++)
    for (int i = 0; i < N; i++) sum[i] += load(x + row * columns + i * LANES);
  for (int i = 0; i < N; i++) store(sums + i * LANES, load(sums + i * LANES) + sum[i]);
}

}  // namespace

extern "C" int norm_forward(const NormCall* call, float eps) {
#pragma omp parallel for num_threads(call->threads) schedule(static)
  for (int64_t row = 0; row < call->rows; row++) norm_row(*call, row, eps);
  return 1;
}

extern "C" int norm_backward(const NormCall* given) {
  const NormCall& call = *given;
  const int64_t size = 2 * call.columns;
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t thread = 0; thread < call.threads; thread++) {
    float* sums = call.space + thread * size;
    std::fill(sums, sums + size, 0.0f);
    int64_t row = thread * call.rows / call.threads;
    const int64_t end = (thread + 1) * call.rows / call.threads;
    for (; row + TOGETHER <= end; row += TOGETHER) norm_backward_rows<TOGETHER>(call, row, sums);
    for (; row < end; row++) norm_backward_rows<1>(call, row, sums);
  }
  for (int64_t c = 0; c < size; c++) {
    float sum = 0.0f;
    for (int64_t thread = 0; thread < call.threads; thread++) sum += call.space[thread * size + c];
    float* to = c < call.columns ? call.grad_weight : call.grad_bias;
    if (to) to[c % call.columns] = sum;
  }
  return 1;
}

extern "C" int column_sums(const SumCall* given) {
  const SumCall& call = *given;
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t thread = 0; thread < call.threads; thread++) {
    float* sums = call.space + thread * call.columns;
    std::fill(sums, sums + call.columns, 0.0f);
    const int64_t end = (thread + 1) * call.rows / call.threads;
    for (int64_t row = thread * call.rows / call.threads; row < end; row += BLOCK) {
      const int64_t rows = std::min(BLOCK, end - row);
      const float* x = call.x + row * call.columns;
      int64_t c = 0;
      for (; c + 8 * LANES <= call.columns; c += 8 * LANES) add_columns<8>(x + c, rows, call.columns, sums + c);
      for (; c < call.columns; c += LANES) add_columns<1>(x + c, rows, call.columns, sums + c);
    }
  }
  for (int64_t c = 0; c < call.columns; c++) {
    float sum = 0.0f;
    for (int64_t thread = 0; thread < call.threads; thread++) sum += call.space[thread * call.columns + c];
    call.out[c] = sum;
  }
  return 1;
}
