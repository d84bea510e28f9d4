"""Renders Jsonnet templates for many events: compiled to Python if that is sure, or by an engine.

    library = Library(Path("lib"), "event.libsonnet", "inner.libsonnet")
    renderer = Renderer(Path("templates"), library)
    template = renderer.load("hello.jsonnet")
    [result] = renderer.render(template, [Row(b'{"name": "Ann"}')])

README.md says more, and which module has what.
"""
