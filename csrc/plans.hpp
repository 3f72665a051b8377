// Settings of Benettin's and Ginelli's methods, and the arrays that they write.
#pragma once

#include <cstdint>

#include "lanes.hpp"

namespace pylyap {

struct SpectrumPlan {
  Index start, n_transient, n_steps, qr_every, record_every;
  Index segment;  // steps per product of R factors; 0 for none
};

// Arrays over runs, all of them written; nan from the record in which a run diverged.
struct SpectrumOutput {
  double* growth;        // (runs, n_records, k) log growth summed over each record, nats
  double* loss;          // (runs, n_records + 1)
  double* state;         // (runs, n)
  double* frame;         // (runs, n, k); in: the start frame
  std::int64_t* status;  // (runs) Status of pylyap/_status.py: 0, 1 or 3
  std::int64_t* n_done;  // (runs) steps after the transient with a finite state
  double* products;      // (runs, n_steps / segment, k, k) or null
  double* exponents;     // (runs, n_steps / segment, k)
  // (runs, k) of the frame over the transient; the caller fills it with nan.
  double* transient_growth;
};

struct CovariantPlan {
  Index start, n_transient, n_steps, n_tail;  // steps, multiples of qr_every
  Index qr_every, every;                      // steps per factor R and per record
  Index delay;                                // steps to the start of the early pull-back; 0: none
  Index segment;                              // factors between two checkpoints
};

// Arrays over runs, all of them written; with T = n_steps / every records.
struct CovariantOutput {
  double* vectors;             // (runs, T + 1, n, k) or null
  double* coefficients;        // (runs, T + 1, k, k): the vectors in the frame, column by column
  double* states;              // (runs, T + 1, n)
  double* growth;              // (runs, T, k) of the vectors, summed over each record
  double* frame_growth;        // (runs, T, k) of the frame
  double* residual;            // (runs, T, k) largest over each record
  double* transient_growth;    // (runs, k) of the frame, summed over the transient
  double* tail_growth;         // (runs, k) of the vectors, summed over the tail
  double* early_vectors;       // (runs, T + 1, n, k) or null
  double* early_coefficients;  // (runs, T + 1, k, k) or null
  double* early_error;         // (runs, T + 1, k) or null: sines to the vectors
  std::int64_t* status;        // (runs) Status of pylyap/_status.py: 0, 1 or 3
  std::int64_t* n_done;  // (runs) steps after the transient, tail included, with a finite state
};

}  // namespace pylyap
