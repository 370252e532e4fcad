// Package admin is the relay's listener for its operator: /metrics, /healthz,
// /readyz and, where asked for, /debug/pprof. It tells numbers, never who: no
// rendezvous id, no address, no token is in any of them. It is not reachable
// from outside unless the operator says so. The openscope-relay command imports it.
package admin
