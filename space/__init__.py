"""The screens of the Space, a module a tab; `app.py` puts them together.

Every computation is a call into `fer_zoo`; `readers.py` holds what the tabs share, `html.py` draws.
"""
