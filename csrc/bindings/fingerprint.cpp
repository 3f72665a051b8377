// Compiled again after every edit of csrc/: nothing else may be in this file.
#include "../build_facts.hpp"

const char* pylyap::source_fingerprint() { return PYLYAP_SOURCES; }
