// Facts about the build, which the compiled core reports to Python.
#pragma once

#include <string>

namespace pylyap {

std::string eigen_version();
const char* source_fingerprint();  // of pylyap/_sources.py

}  // namespace pylyap
