package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"openscope/relay"
)

// metric is one number of a relay.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string
	of    func(relay.Stats) float64
}

func define(kind prometheus.ValueType, name, help string, of func(relay.Stats) float64) metric {
	return metric{prometheus.NewDesc("openscope_relay_"+name, help, nil, nil), kind, "", of}
}

// The reasons are a fixed list: a label that a peer could choose would be a
// memory leak, and one that names a peer a breach.
var refused = prometheus.NewDesc("openscope_relay_refused_total", "Refusals, by what was refused.", []string{"what"}, nil)

func reason(label string, of func(relay.Stats) float64) metric {
	return metric{refused, prometheus.CounterValue, label, of}
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

var metrics = []metric{
	define(gauge, "connections", "Connections that stand.", func(s relay.Stats) float64 { return float64(s.Connections) }),
	define(gauge, "handshaking", "Handshakes under way.", func(s relay.Stats) float64 { return float64(s.Handshaking) }),
	define(gauge, "addresses", "Addresses that are remembered for their limits.", func(s relay.Stats) float64 { return float64(s.Addresses) }),
	define(gauge, "daemons", "Daemons that stand.", func(s relay.Stats) float64 { return float64(s.Daemons) }),
	define(gauge, "sessions", "Sessions that are registered.", func(s relay.Stats) float64 { return float64(s.Sessions) }),
	define(gauge, "legs", "Legs that are spliced.", func(s relay.Stats) float64 { return float64(s.Legs) }),
	define(gauge, "certificate_expires_timestamp_seconds", "When the certificate that is shown ends.", func(s relay.Stats) float64 { return float64(s.CertificateEnds.Unix()) }),
	define(counter, "accepted_total", "Handshakes that succeeded.", func(s relay.Stats) float64 { return float64(s.Accepted) }),
	define(counter, "accepted_tcp_total", "Of them, those over TCP.", func(s relay.Stats) float64 { return float64(s.AcceptedTCP) }),
	define(counter, "registered_total", "Sessions registered.", func(s relay.Stats) float64 { return float64(s.Registered) }),
	define(counter, "joined_total", "Legs joined.", func(s relay.Stats) float64 { return float64(s.Joined) }),
	define(counter, "retries_total", "Newcomers asked to prove their address.", func(s relay.Stats) float64 { return float64(s.Retried) }),
	define(counter, "forwarded_up_bytes_total", "Bytes from clients to daemons.", func(s relay.Stats) float64 { return float64(s.BytesUp) }),
	define(counter, "forwarded_down_bytes_total", "Bytes from daemons to clients.", func(s relay.Stats) float64 { return float64(s.BytesDown) }),
	define(counter, "revoked_total", "Connections ended because their token was.", func(s relay.Stats) float64 { return float64(s.EndedRevoked) }),
	define(counter, "stalled_total", "Legs ended because their peer did not read.", func(s relay.Stats) float64 { return float64(s.Stalled) }),
	define(counter, "shed_total", "Legs ended because the relay held too much.", func(s relay.Stats) float64 { return float64(s.Shed) }),
	reason("crowd", func(s relay.Stats) float64 { return float64(s.RefusedCrowd) }),
	reason("token", func(s relay.Stats) float64 { return float64(s.RefusedToken) }),
	reason("session", func(s relay.Stats) float64 { return float64(s.RefusedSession) }),
	reason("join", func(s relay.Stats) float64 { return float64(s.RefusedJoin) }),
	reason("draining", func(s relay.Stats) float64 { return float64(s.RefusedDraining) }),
}

// collector asks the relay at every scrape.
type collector struct{ stats func() relay.Stats }

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.stats()
	for _, m := range metrics {
		if m.label == "" {
			to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(s))
			continue
		}
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.of(s), m.label)
	}
}
