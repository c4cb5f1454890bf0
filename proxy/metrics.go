package proxy

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"chaperone/policy"
)

// Metrics counts what passes, under names that begin with chaperone_. No label
// ever holds a path, a handle or anything else that an agent chooses freely.
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	alarms     *prometheus.CounterVec
	added      prometheus.Histogram
	upstream   prometheus.Histogram
	policy     prometheus.Histogram
	tunnels    prometheus.Counter
	handshakes prometheus.Counter
	reloads    *prometheus.CounterVec
	shadow     *prometheus.CounterVec
	budget     prometheus.Counter
	cells      sync.Map // requestLabels -> prometheus.Counter
}

type requestLabels struct {
	service string
	access  policy.Access
	result  policy.Result
}

// NewMetrics returns metrics in a registry of their own, together with those of
// the Go runtime and the process.
func NewMetrics() *Metrics {
	seconds := []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1, 5, 30}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chaperone_requests_total",
			Help: "Requests that arrived, by service, access level and decision."}, []string{"service", "access", "result"}),
		alarms: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chaperone_alarms_total",
			Help: "Requests that are a sign of a leak or an attack, by kind."}, []string{"kind"}),
		added: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "chaperone_added_seconds",
			Help: "Time that the proxy itself added to a forwarded request.", Buckets: seconds}),
		upstream: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "chaperone_upstream_seconds",
			Help: "Time from sending a request to the head of the service's answer.", Buckets: seconds}),
		policy: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "chaperone_policy_seconds",
			Help: "Time that policy took to answer, from memory or not.", Buckets: []float64{.000001, .000002, .000005, .00001, .00002, .00005, .0001, .0002, .0005, .001, .005, .05}}),
		tunnels: prometheus.NewCounter(prometheus.CounterOpts{Name: "chaperone_tunnels_total",
			Help: "Inspected tunnels opened."}),
		handshakes: prometheus.NewCounter(prometheus.CounterOpts{Name: "chaperone_handshake_failures_total",
			Help: "Tunnels in which TLS with the agent failed; an agent that does not trust the CA shows here."}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chaperone_reloads_total",
			Help: "Reloads of policy or catalogue, by what and whether it took effect."}, []string{"what", "result"}),
	}
	m.shadow = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chaperone_policy_shadow_differences_total",
		Help: "Decisions that the policy in the shadow would have made otherwise, by both results."}, []string{"result", "shadow"})
	m.budget = prometheus.NewCounter(prometheus.CounterOpts{Name: "chaperone_policy_failures_total",
		Help: "Requests refused because the policy could not be evaluated: an error, no answer, or no time left."})
	m.registry.MustRegister(m.shadow, m.budget, m.requests, m.alarms, m.added, m.upstream, m.policy, m.tunnels, m.handshakes, m.reloads,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Gauge adds a figure that is read when the metrics are.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Counter adds a count that is read when the metrics are.
func (m *Metrics) Counter(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Each adds a figure for each value of a label, read when the metrics are.
func (m *Metrics) Each(name, help, label string, read func() map[string]float64) {
	m.registry.MustRegister(&each{prometheus.NewDesc(name, help, []string{label}, nil), read})
}

// each is a collector of figures that are read when they are asked for.
type each struct {
	desc *prometheus.Desc
	read func() map[string]float64
}

// Describe implements [prometheus.Collector].
func (e *each) Describe(ch chan<- *prometheus.Desc) { ch <- e.desc }

// Collect implements [prometheus.Collector].
func (e *each) Collect(ch chan<- prometheus.Metric) {
	for value, figure := range e.read() {
		ch <- prometheus.MustNewConstMetric(e.desc, prometheus.GaugeValue, figure, value)
	}
}

// Reloaded counts a reload of what ("policy", "catalogue") that took effect when
// err is nil.
func (m *Metrics) Reloaded(what string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.reloads.WithLabelValues(what, result).Inc()
}

// Alarm counts an alarm that belongs to no request.
func (m *Metrics) Alarm(kind string) { m.alarms.WithLabelValues(kind).Inc() }

func (m *Metrics) tunnelOpened()    { m.tunnels.Inc() }
func (m *Metrics) handshakeFailed() { m.handshakes.Inc() }

// observe counts one exchange as its record closes.
func (m *Metrics) observe(x *exchange) {
	labels := requestLabels{x.q.Action.Service, x.q.Action.Access, x.rec.Decision.Result}
	cell, ok := m.cells.Load(labels)
	if !ok {
		cell, _ = m.cells.LoadOrStore(labels, m.requests.WithLabelValues(labels.service, string(labels.access), string(labels.result)))
	}
	cell.(prometheus.Counter).Inc()
	if s := x.rec.Decision.Shadow; s != nil {
		m.shadow.WithLabelValues(string(x.rec.Decision.Result), string(s.Result)).Inc()
	}
	if x.rec.Outcome.Error == "policy_failed" {
		m.budget.Inc()
	}
	if x.rec.Alarm != "" {
		m.alarms.WithLabelValues(x.rec.Alarm).Inc()
	}
	if x.pondered > 0 {
		m.policy.Observe(seconds(x.pondered))
	}
	if !x.replied.IsZero() {
		m.added.Observe(seconds(x.rec.Outcome.Added))
		m.upstream.Observe(seconds(x.rec.Outcome.Upstream))
	}
}

func seconds(d time.Duration) float64 { return d.Seconds() }
