// Package browser looks at the services' pages with a browser, Chromium without a window.
package browser
