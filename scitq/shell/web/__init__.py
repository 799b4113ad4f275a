"""The page that `scitq web` serves on loopback to one browser.

`server` listens and hands out the one-time link; `security` lets only that browser in; `app` has the routes; `live` says what
changed; `page` is what every page is made with; `pages` are the pages. Nothing is loaded from elsewhere, nothing is built.
"""
