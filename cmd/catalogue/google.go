package main

import (
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

var googleAPI = pack{"google.golang.org/api", "v0.311.0"}

// google is a service of Google's with a discovery document.
type google struct {
	files  []string // in the module, the newest version first
	drop   string   // of the operations' names: "calendar."
	hosts  []string
	shared string // the API's place under www.googleapis.com, or ""
	resume bool   // clients still begin uploads at the paths of the resumable protocol
	extra  action.Service
}

// make reads the documents. Names lose the API's own, since the service's stands
// in front: google-calendar:events.delete.
func (g google) make(w *work) error {
	w.License, w.Hosts = "BSD-3-Clause", g.hosts
	w.Env, w.Places, w.Handle, w.Refusal = []string{"GOOGLE_OAUTH_ACCESS_TOKEN"}, []string{"bearer"}, "ya29.", "google"
	w.Resources, w.Batches = g.extra.Resources, g.extra.Batches
	w.EncodedSlash, w.Copies, w.Also = g.extra.EncodedSlash, g.extra.Copies, g.extra.Also
	if len(g.extra.Env) > 0 {
		w.Env = g.extra.Env
	}
	for _, file := range g.files {
		b, err := w.goFile(googleAPI, file)
		if err != nil {
			return err
		}
		o := w.options("")
		o.Rename = func(op *describe.Operation) string { return strings.TrimPrefix(op.Name, g.drop) }
		if err := w.read(file, b, o); err != nil {
			return err
		}
	}
	for _, path := range sorted(w.Paths) {
		if strings.HasPrefix(path, "/resumable/") && !g.resume {
			delete(w.Paths, path) // of a client that is no more
		}
		for _, method := range []string{"POST", "PATCH"} { // the parts of a resumable upload
			if row := w.row(path, method); row != "" && (strings.HasPrefix(path, "/upload/") || strings.HasPrefix(path, "/resumable/")) {
				put(&w.Service, path, "PUT", row)
			}
		}
	}
	if g.shared != "" {
		for _, under := range []string{"", "/upload", "/batch"} {
			w.Hosts = append(w.Hosts, "www.googleapis.com"+under+"/"+g.shared)
		}
	}
	return nil
}

func googleVendors() []vendor {
	multipart := func(paths ...string) map[string]string {
		m := map[string]string{}
		for _, p := range paths {
			m[p] = "multipart"
		}
		return m
	}
	rules := func(pairs ...string) []action.ResourceRule {
		var out []action.ResourceRule
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, action.ResourceRule{Type: pairs[i], ID: pairs[i+1]})
		}
		return out
	}
	return []vendor{
		{"google-calendar", google{
			files: []string{"calendar/v3/calendar-api.json"}, drop: "calendar.", shared: "calendar",
			extra: action.Service{Resources: rules("event", "{calendarId}/{eventId}", "calendar", "{calendarId}"), Batches: multipart("/batch/calendar/v3")},
		}.make},
		{"google-drive", google{
			files: []string{"drive/v3/drive-api.json", "drive/v2/drive-api.json"}, drop: "drive.", shared: "drive",
			extra: action.Service{Resources: rules("file", "{fileId}", "drive", "{driveId}", "drive", "{teamDriveId}"), Batches: multipart("/batch/drive/v3", "/batch/drive/v2")},
		}.make},
		{"google-gmail", google{
			files: []string{"gmail/v1/gmail-api.json"}, drop: "gmail.", hosts: []string{"gmail.googleapis.com"}, shared: "gmail",
			extra: action.Service{Resources: rules("mailbox", "{userId}"), Batches: multipart("/batch/gmail/v1", "/batch")},
		}.make},
		{"google-sheets", google{
			files: []string{"sheets/v4/sheets-api.json"}, drop: "sheets.", hosts: []string{"sheets.googleapis.com"},
			extra: action.Service{Resources: rules("spreadsheet", "{spreadsheetId}"), Batches: multipart("/batch")},
		}.make},
		{"google-bigquery", google{
			files: []string{"bigquery/v2/bigquery-api.json"}, drop: "bigquery.", hosts: []string{"bigquery.googleapis.com"}, shared: "bigquery",
			extra: action.Service{Resources: rules("table", "{projectId}/{datasetId}/{tableId}", "table", "{projectsId}/{datasetsId}/{tablesId}", "dataset", "{projectsId}/{datasetsId}", "dataset", "{projectId}/{datasetId}", "project", "{projectId}"),
				Batches: multipart("/batch/bigquery/v2", "/batch")},
		}.make},
		{"google-storage", google{
			files: []string{"storage/v1/storage-api.json"}, drop: "storage.", hosts: []string{"storage.googleapis.com"}, shared: "storage", resume: true, // gsutil
			extra: action.Service{EncodedSlash: true, Also: map[string]string{ // who may read it
				"?predefinedAcl": "objectAccessControls.insert admin", "?destinationPredefinedAcl": "objectAccessControls.insert admin",
				"?predefinedDefaultObjectAcl": "defaultObjectAccessControls.insert admin",
			}, Copies: map[string]string{
				"objects.copy":    "objects.get /storage/v1/b/{sourceBucket}/o/{sourceObject}",
				"objects.rewrite": "objects.get /storage/v1/b/{sourceBucket}/o/{sourceObject}",
			}, Resources: rules("object", "{destinationBucket}/{destinationObject}", "object", "{bucket}/{object}", "bucket", "{bucket}", "project", "{projectId}"),
				Batches: multipart("/batch/storage/v1", "/batch")},
		}.make},
	}
}
