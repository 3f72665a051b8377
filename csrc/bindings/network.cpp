// Networks, activations and elementary functions.
#include <algorithm>
#include <map>
#include <tuple>

#include "../activation.hpp"
#include "../buffer.hpp"
#include "../lanes.hpp"
#include "arrays.hpp"
#include "inputs.hpp"
#include "register.hpp"
#include "settings.hpp"

namespace pylyap::bindings {

namespace {

// The named row of the table.
const Activation& activation_named(const std::string& name) {
  const auto table = activations();
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const auto& a) { return a.name == name; });
  require(found != table.end(), "unknown activation " + name);
  return *found;
}

// A name, or the addresses of a user's two compiled loops and the object that owns them.
using NameOrCode =
    std::variant<std::string, std::tuple<std::uintptr_t, std::uintptr_t, py::object>>;

Activation activation_from(const NameOrCode& item) {
  if (const auto* name = std::get_if<std::string>(&item)) return activation_named(*name);
  const auto& [value_slope, curvature, owner] = std::get<1>(item);
  require(value_slope && curvature, "an activation's address must not be null");
  UserActivation user;
  user.value_slope = reinterpret_cast<decltype(user.value_slope)>(value_slope);
  user.curvature = reinterpret_cast<decltype(user.curvature)>(curvature);
  return Activation(user);
}

Architecture make_architecture(const std::vector<Index>& layers,
                               const std::vector<NameOrCode>& hidden, const std::string& loss) {
  require(layers.size() >= 2, "layers must have at least an input and an output");
  for (const Index width : layers) require(width >= 1, "layers must be widths of at least 1");
  require(hidden.size() + 2 == layers.size(), "activations must name every hidden layer");
  std::vector<Activation> table;
  for (const auto& item : hidden) table.push_back(activation_from(item));
  auto kind = Loss::mse;
  if (loss == "cross_entropy") kind = Loss::cross_entropy;
  if (loss == "cross_entropy_clipped") kind = Loss::cross_entropy_clipped;
  require(kind != Loss::mse || loss == "mse", "unknown loss " + loss);
  return {layers, table, kind};
}

void predict(const Architecture& arch, const Array& weights, const Inputs& X, Array out,
             const Task& task) {
  const Index runs = rows(weights), samples = samples_of(X, arch.width(0));
  require_shape(weights, "weights", {runs, arch.n_params});
  require_shape(out, "out", {runs, samples, arch.outputs()});
  const double* w = weights.data();
  double* target = out.mutable_data();
  const auto these = task.of(runs);
  const py::gil_scoped_release unlocked;
  const Data data = make_data(arch, X, nullptr, 0, true);
  pylyap::predict(arch, data, w, target, these);
}

// Elementary functions as the kernels compute them.
Array elementary(const std::string& name, const Array& x) {
  using E = Elementary;
  const std::map<std::string, E> known{
      {"exp", E::exp}, {"expm1", E::expm1}, {"log", E::log}, {"log1p", E::log1p}};
  const auto found = known.find(name);
  require(found != known.end(), "name must be exp, expm1, log or log1p, got " + name);
  Array y(x.size());
  pylyap::elementary(found->second, x.data(), y.mutable_data(), x.size());
  return y;
}

// f, f' and f'' of an activation.
py::tuple activate(const NameOrCode& activation, const Array& z) {
  const Activation a = activation_from(activation);
  const Index count = z.size(), m = (count + kRuns<Lane> - 1) / kRuns<Lane>;
  Buffer<Lane> pre(m), f(m), df(m), d2f(m), ones(m);
  std::fill_n(ones.data(), m, broadcast<Lane>(1.0));
  std::copy_n(z.data(), count, reinterpret_cast<double*>(pre.data()));
  a.value_slope(pre.data(), f.data(), df.data(), m);
  a.curvature(pre.data(), f.data(), df.data(), ones.data(), d2f.data(), m);
  const auto array = [&](const Buffer<Lane>& from) {
    return Array(count, reinterpret_cast<const double*>(from.data()));
  };
  return py::make_tuple(array(f), array(df), array(d2f));
}

}  // namespace

void register_network(py::module_& m) {
  py::list names;
  for (const auto& a : activations()) names.append(std::string(a.name));
  m.attr("ACTIVATIONS") = py::tuple(names);

  py::class_<Architecture>(m, "Architecture")
      .def(py::init(&make_architecture), py::arg("layers"), py::arg("activations"), py::arg("loss"),
           py::keep_alive<1, 3>())  // a user's compiled loops
      .def_readonly("n_params", &Architecture::n_params)
      .def("predict", &predict, exact("weights"), exact("X"), exact("out"), py::arg("task"));

  m.def("elementary", &elementary, py::arg("name"), exact("x"));
  m.def("activate", &activate, py::arg("activation"), exact("z"));
}

}  // namespace pylyap::bindings
