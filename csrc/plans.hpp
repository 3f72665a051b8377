// Settings of the methods that carry frames along runs, and the arrays that they write.
#pragma once

#include <cstdint>

#include "lanes.hpp"

namespace pylyap {

struct SpectrumPlan {
  Index start, n_transient, n_steps, qr_every, record_every;
  Index segment;  // steps per product of R factors; 0 for none
};

// Arrays over runs, all of them written; nan from where a run diverged.
struct SpectrumOutput {
  double* growth;        // (runs, n_records, k) log growth summed over each record, nats
  double* loss;          // (runs, n_records + 1)
  double* state;         // (runs, n)
  double* frame;         // (runs, n, k); in: the start frame
  std::int64_t* status;  // (runs) 0 finished, 1 diverged, 3 a user's function raised
  std::int64_t* n_done;  // (runs) steps after the transient that stayed finite
  double* products;      // (runs, n_steps / segment, k, k) or null
  double* exponents;     // (runs, n_steps / segment, k)
  double*
      transient_growth;  // (runs, k) of the frame over the transient; the caller fills it with nan
};

struct CovariantPlan {
  Index start, n_transient, n_steps, n_tail;  // steps, multiples of qr_every
  Index qr_every, every;                      // steps per factor R and per record
  Index delay;                                // steps that early vectors know; 0 for none
  Index segment;                              // factors between two checkpoints
};

// Arrays over runs, all of them written; with T = n_steps / every records.
struct CovariantOutput {
  double* vectors;             // (runs, T + 1, n, k) or null
  double* coefficients;        // (runs, T + 1, k, k): the vectors in the frame, column by column
  double* states;              // (runs, T + 1, n)
  double* growth;              // (runs, T, k) of the vectors, summed over each record
  double* aligned;             // (runs, T, k) of the frame
  double* residual;            // (runs, T, k) largest over each record
  double* transient_growth;    // (runs, k) of the frame, summed over the transient
  double* tail_growth;         // (runs, k) of the vectors, summed over the tail
  double* early_vectors;       // (runs, T + 1, n, k) or null
  double* early_coefficients;  // (runs, T + 1, k, k) or null
  double* early_error;         // (runs, T + 1, k) or null: sines to the vectors
  std::int64_t* status;        // (runs) 0 finished, 1 diverged, 3 a user's function raised
  std::int64_t* n_done;  // (runs) steps after the transient, tail included, that stayed finite
};

}  // namespace pylyap
