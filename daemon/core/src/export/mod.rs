//! Other tools' formats.
//!
//! | Module | Format | Read by |
//! |---|---|---|
//! | [`folded`] | one stack a line | flamegraph.pl, inferno, speedscope |
//! | [`flamegraph`] | SVG | any browser |
//! | [`pprof`] | `profile.proto` | `go tool pprof`, Pyroscope, Parca |
//! | [`perfetto`] | `perfetto_trace.proto` | ui.perfetto.dev, trace_processor |
//!
//! Every exporter writes to an `impl Write` and is deterministic: the same capture gives the same bytes.

pub mod flamegraph;
pub mod folded;
mod lanes;
pub mod perfetto;
mod perfetto_proto;
pub mod pprof;
mod pprof_proto;
mod proto;
mod thread_calls;
