# Sourced by .ci/run and .ci/full: named stages, a copy of the checkout to work in, clean-up.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

unset PYLYAP_ISA PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
# Real MNIST digits, if they are beside the checkout; the tests that need them are skipped otherwise.
if [ -d "$checkout/../shared/data/mnist" ]; then
  PYLYAP_MNIST=$(cd "$checkout/../shared/data/mnist" && pwd)
  export PYLYAP_MNIST
fi
work=$(mktemp -d)
name="start"

stage() {
  name=$1
  printf '\n=== %s (after %d s)\n' "$name" "$SECONDS"
}

finish() {
  local code=$?
  kill $(jobs -p) 2>/dev/null || true
  rm -rf "$work"
  if [ "$code" -ne 0 ]; then
    printf '\n=== FAILED: %s\n' "$name"
  fi
}
trap finish EXIT

# Waits for a process in the background; if it failed, prints its log and fails.
wait_for() {
  wait "$1" || {
    cat "$2"
    exit 1
  }
}

# A copy of the checkout with uncommitted files, and the working directory in it.
copy_checkout() {
  mkdir "$work/checkout"
  cd "$checkout"
  git ls-files --cached --others --exclude-standard -z |
    tar -c --null -T - | tar -x -C "$work/checkout"
  cp -a .git "$work/checkout"
  cd "$work/checkout"
}

# Installs a package of the system if its command is missing and this user may install packages.
system_package() {
  local command=$1
  shift
  if ! command -v "$command" >/dev/null && [ "$(id -u)" -eq 0 ]; then
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
      --no-install-recommends "$@") >/dev/null || echo "$* cannot be installed"
  fi
}
