//! The part of OpenVINO's C interface that is used, read from the library that was loaded. Handles free themselves.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{ptr, slice};

use libloading::Library;

type Status = i32;
type Handle = *mut c_void;

const OK: Status = 0;
const RESULT_NOT_READY: Status = -9;

/// Elements of tensors, by the numbers of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element(pub u32);

impl Element {
    pub const F16: Self = Self(3);
    pub const F32: Self = Self(4);
    pub const I32: Self = Self(9);
    pub const I64: Self = Self(10);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    rank: i64,
    dims: *mut i64,
}

#[repr(C)]
struct Property {
    key: *const c_char,
    value: *const c_void,
}

#[repr(C)]
struct Version {
    build: *const c_char,
    description: *const c_char,
}

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Functions {
            /// # Safety
            /// The library is OpenVINO's C interface.
            unsafe fn read(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the interface's headers; what they are read from lives as long as this.
                Ok(Self { $($name: unsafe { *library.get(concat!(stringify!($name), "\0").as_bytes())? },)* })
            }
        }
    };
}

functions! {
    ov_get_openvino_version(*mut Version) -> Status;
    ov_version_free(*mut Version);
    ov_get_last_err_msg() -> *const c_char;
    ov_get_error_info(Status) -> *const c_char;
    ov_free(*const c_char);
    ov_core_create(*mut Handle) -> Status;
    ov_core_free(Handle);
    ov_core_get_property(Handle, *const c_char, *const c_char, *mut *mut c_char) -> Status;
    ov_core_read_model(Handle, *const c_char, *const c_char, *mut Handle) -> Status;
    ov_model_free(Handle);
    ov_core_compile_model_props(Handle, Handle, *const c_char, usize, *const Property, *mut Handle) -> Status;
    ov_compiled_model_inputs_size(Handle, *mut usize) -> Status;
    ov_compiled_model_outputs_size(Handle, *mut usize) -> Status;
    ov_compiled_model_input_by_index(Handle, usize, *mut Handle) -> Status;
    ov_compiled_model_output_by_index(Handle, usize, *mut Handle) -> Status;
    ov_compiled_model_create_infer_request(Handle, *mut Handle) -> Status;
    ov_compiled_model_free(Handle);
    ov_port_get_any_name(Handle, *mut *mut c_char) -> Status;
    ov_port_get_element_type(Handle, *mut u32) -> Status;
    ov_output_const_port_free(Handle);
    ov_tensor_create(u32, Shape, *mut Handle) -> Status;
    ov_tensor_get_shape(Handle, *mut Shape) -> Status;
    ov_tensor_get_element_type(Handle, *mut u32) -> Status;
    ov_tensor_get_byte_size(Handle, *mut usize) -> Status;
    ov_tensor_data(Handle, *mut *mut c_void) -> Status;
    ov_tensor_free(Handle);
    ov_shape_free(*mut Shape) -> Status;
    ov_infer_request_set_input_tensor_by_index(Handle, usize, Handle) -> Status;
    ov_infer_request_get_output_tensor_by_index(Handle, usize, *mut Handle) -> Status;
    ov_infer_request_start_async(Handle) -> Status;
    ov_infer_request_wait_for(Handle, i64) -> Status;
    ov_infer_request_wait(Handle) -> Status;
    ov_infer_request_cancel(Handle) -> Status;
    ov_infer_request_free(Handle);
}

/// Loads a library, for nobody else to see.
fn open(path: &Path) -> Result<Library, String> {
    let words = |error: libloading::Error| error.to_string();
    #[cfg(unix)]
    // SAFETY: the library is whole and the one that is pinned, and its initialisers do nothing but initialise.
    return unsafe {
        use libloading::os::unix;
        unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL).map(Library::from).map_err(words)
    };
    #[cfg(windows)]
    // SAFETY: as above; the libraries that it needs are looked for beside it.
    return unsafe {
        use libloading::os::windows;
        windows::Library::load_with_flags(path, windows::LOAD_WITH_ALTERED_SEARCH_PATH)
            .map(Library::from)
            .map_err(words)
    };
}

/// Libraries that are loaded, for as long as the process lives.
pub(super) struct Api {
    functions: Functions,
    /// Unloading them under threads of their own would crash.
    _libraries: ManuallyDrop<Vec<Library>>,
}

impl Api {
    /// Loads the C interface, the first of `paths`, and then the others, for nobody else to see. All of them at once: what OpenVINO
    /// loads by itself when it needs it has destructors that would run before the handler that waits for runs, at the end of the
    /// process.
    pub fn load(paths: &[PathBuf]) -> Result<Arc<Self>, String> {
        let libraries = paths.iter().map(|path| open(path)).collect::<Result<Vec<_>, String>>()?;
        let library = libraries.first().ok_or("no library of it is pinned")?;
        // SAFETY: it is the C interface of the version whose headers these types are from.
        let functions = unsafe { Functions::read(library) }.map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { functions, _libraries: ManuallyDrop::new(libraries) }))
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == OK { Ok(()) } else { Err(self.reason(status)) }
    }

    /// Why the last call failed, without the places in the library's sources.
    fn reason(&self, status: Status) -> String {
        // SAFETY: the message is ours to free, once; the other one is the library's, and lives as long as it.
        let (message, name) = unsafe {
            let message = (self.functions.ov_get_last_err_msg)();
            let text = text_of(message);
            (self.functions.ov_free)(message);
            (text, text_of((self.functions.ov_get_error_info)(status)))
        };
        let of_sources = |line: &&str| ["Exception from", "Check '"].iter().any(|begin| line.starts_with(begin));
        let lines = message.lines().map(str::trim).filter(|line| !line.is_empty() && !of_sources(line));
        let reason = lines.collect::<Vec<_>>().join(" ");
        if reason.is_empty() { name } else { reason }
    }

    /// How the library describes itself.
    pub fn version(&self) -> String {
        let mut version = Version { build: ptr::null(), description: ptr::null() };
        // SAFETY: filled by the first call, freed by the second.
        unsafe {
            if self.check((self.functions.ov_get_openvino_version)(&mut version)).is_err() {
                return String::new();
            }
            let build = text_of(version.build);
            (self.functions.ov_version_free)(&mut version);
            build
        }
    }

    /// What compiles graphs for the CPU.
    pub fn core(self: &Arc<Self>) -> Result<Core, String> {
        let mut handle = ptr::null_mut();
        // SAFETY: the place for the answer is ours.
        self.check(unsafe { (self.functions.ov_core_create)(&mut handle) })?;
        Ok(Core(Owned::new(self, handle, self.functions.ov_core_free)?))
    }
}

/// The text that a pointer leads to; empty where it leads nowhere.
///
/// # Safety
/// It is null, or leads to a text that ends with a zero.
unsafe fn text_of(pointer: *const c_char) -> String {
    // SAFETY: as the caller says.
    if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned() }
}

/// A handle that is freed once.
struct Owned {
    api: Arc<Api>,
    handle: Handle,
    free: unsafe extern "C" fn(Handle),
}

impl Owned {
    fn new(api: &Arc<Api>, handle: Handle, free: unsafe extern "C" fn(Handle)) -> Result<Self, String> {
        if handle.is_null() {
            return Err("OpenVINO gave nothing".to_owned());
        }
        Ok(Self { api: Arc::clone(api), handle, free })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the handle is of the kind that this function frees, and nobody else has it.
        unsafe { (self.free)(self.handle) };
    }
}

// SAFETY: OpenVINO's objects may be used from any thread; those that must not be used from two at a time are behind `&mut`.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

const CPU: &CStr = c"CPU";

/// Compiles graphs.
pub(super) struct Core(Owned);

impl Core {
    /// A property of the CPU, in words.
    pub fn property(&self, key: &CStr) -> Result<String, String> {
        let (api, mut value) = (&self.0.api, ptr::null_mut());
        // SAFETY: the texts end with zeros; the answer is ours to free, once.
        unsafe {
            api.check((api.functions.ov_core_get_property)(self.0.handle, CPU.as_ptr(), key.as_ptr(), &mut value))?;
            let text = text_of(value);
            (api.functions.ov_free)(value);
            Ok(text)
        }
    }

    /// Reads the graph at `path` and compiles it for the CPU.
    pub fn compile(&self, path: &Path, properties: &[(&CStr, String)]) -> Result<Compiled, String> {
        let (api, core) = (&self.0.api, self.0.handle);
        let path = path.to_str().ok_or("its path is not valid Unicode")?;
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let mut model = ptr::null_mut();
        // SAFETY: the path ends with a zero; weights beside the graph are found by it.
        api.check(unsafe { (api.functions.ov_core_read_model)(core, path.as_ptr(), ptr::null(), &mut model) })?;
        let model = Owned::new(api, model, api.functions.ov_model_free)?;
        let values = properties.iter().map(|(key, value)| Ok((key, CString::new(value.as_str())?)));
        let values: Vec<_> = values.collect::<Result<_, std::ffi::NulError>>().map_err(|error| error.to_string())?;
        let properties: Vec<Property> =
            values.iter().map(|(key, value)| Property { key: key.as_ptr(), value: value.as_ptr().cast() }).collect();
        let mut compiled = ptr::null_mut();
        // SAFETY: keys and values outlive the call, and there are as many as it is told.
        api.check(unsafe {
            (api.functions.ov_core_compile_model_props)(
                core,
                model.handle,
                CPU.as_ptr(),
                properties.len(),
                properties.as_ptr(),
                &mut compiled,
            )
        })?;
        Ok(Compiled(Owned::new(api, compiled, api.functions.ov_compiled_model_free)?))
    }
}

/// A graph that is compiled.
pub(super) struct Compiled(Owned);

impl Compiled {
    /// Names and types of what it asks for.
    pub fn inputs(&self) -> Result<Vec<(String, Element)>, String> {
        let functions = &self.0.api.functions;
        self.ports(functions.ov_compiled_model_inputs_size, functions.ov_compiled_model_input_by_index)
    }

    /// Names and types of what it can give.
    pub fn outputs(&self) -> Result<Vec<(String, Element)>, String> {
        let functions = &self.0.api.functions;
        self.ports(functions.ov_compiled_model_outputs_size, functions.ov_compiled_model_output_by_index)
    }

    fn ports(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
        by_index: unsafe extern "C" fn(Handle, usize, *mut Handle) -> Status,
    ) -> Result<Vec<(String, Element)>, String> {
        let (api, mut count) = (&self.0.api, 0);
        // SAFETY: the place for the answer is ours.
        api.check(unsafe { size(self.0.handle, &mut count) })?;
        let port = |index| {
            let (mut port, mut name, mut element) = (ptr::null_mut(), ptr::null_mut(), 0);
            // SAFETY: the places for the answers are ours; the name is freed once, after it was copied.
            unsafe {
                api.check(by_index(self.0.handle, index, &mut port))?;
                let port = Owned::new(api, port, api.functions.ov_output_const_port_free)?;
                api.check((api.functions.ov_port_get_any_name)(port.handle, &mut name))?;
                let text = text_of(name);
                (api.functions.ov_free)(name);
                api.check((api.functions.ov_port_get_element_type)(port.handle, &mut element))?;
                Ok((text, Element(element)))
            }
        };
        (0..count).map(port).collect()
    }

    /// What computes one run at a time.
    pub fn request(&self) -> Result<Request, String> {
        let (api, mut request) = (&self.0.api, ptr::null_mut());
        // SAFETY: the place for the answer is ours.
        api.check(unsafe { (api.functions.ov_compiled_model_create_infer_request)(self.0.handle, &mut request) })?;
        Ok(Request(Owned::new(api, request, api.functions.ov_infer_request_free)?))
    }
}

/// Computes one run at a time.
pub(super) struct Request(Owned);

impl Request {
    /// Gives it an input: a copy of `values`.
    pub fn set_input<T: Copy>(
        &mut self,
        index: usize,
        element: Element,
        shape: &[usize],
        values: &[T],
    ) -> Result<(), String> {
        let api = &self.0.api;
        let mut dims: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let shape = Shape { rank: dims.len() as i64, dims: dims.as_mut_ptr() };
        let (mut tensor, mut data, mut bytes) = (ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: the shape's sizes live through the call, which copies them; as many bytes are written as the tensor says
        // it has; the request keeps a share of the tensor of its own.
        unsafe {
            api.check((api.functions.ov_tensor_create)(element.0, shape, &mut tensor))?;
            let tensor = Owned::new(api, tensor, api.functions.ov_tensor_free)?;
            api.check((api.functions.ov_tensor_get_byte_size)(tensor.handle, &mut bytes))?;
            api.check((api.functions.ov_tensor_data)(tensor.handle, &mut data))?;
            if bytes != size_of_val(values) || (data.is_null() && bytes > 0) {
                return Err(format!("an input of {} bytes has a tensor of {bytes}", size_of_val(values)));
            }
            if bytes > 0 {
                ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), data.cast::<u8>(), bytes);
            }
            api.check((api.functions.ov_infer_request_set_input_tensor_by_index)(self.0.handle, index, tensor.handle))
        }
    }

    /// Begins a run, which goes on by itself: [`Request::wait`] must follow.
    pub fn start(&mut self) -> Result<(), String> {
        let api = &self.0.api;
        // SAFETY: the request is idle: `wait` has followed the start before.
        api.check(unsafe { (api.functions.ov_infer_request_start_async)(self.0.handle) })
    }

    /// Waits for the run that was begun for so many milliseconds. Whether it has ended.
    pub fn wait(&mut self, ms: i64) -> Result<bool, String> {
        let api = &self.0.api;
        // SAFETY: takes no pointers but the request's own.
        match unsafe { (api.functions.ov_infer_request_wait_for)(self.0.handle, ms) } {
            OK => Ok(true),
            RESULT_NOT_READY => Ok(false),
            status => Err(api.reason(status)),
        }
    }

    /// Stops the run that was begun, and waits for its end.
    pub fn stop(&mut self) {
        let functions = &self.0.api.functions;
        // SAFETY: takes no pointers but the request's own. What the run gave is of no interest.
        unsafe {
            (functions.ov_infer_request_cancel)(self.0.handle);
            (functions.ov_infer_request_wait)(self.0.handle);
        }
    }

    /// Hands the sizes and values of an output of the last run to `read`.
    pub fn output<T>(&mut self, index: usize, read: impl FnOnce(Vec<i64>, &[f32]) -> T) -> Result<T, String> {
        let api = &self.0.api;
        let (mut tensor, mut data, mut bytes, mut element) = (ptr::null_mut(), ptr::null_mut(), 0, 0);
        let mut shape = Shape { rank: 0, dims: ptr::null_mut() };
        // SAFETY: the places for the answers are ours; the values belong to the request, which nobody uses meanwhile, and
        // are as many as fit into the tensor's bytes; the shape's sizes are freed once, after they were copied.
        unsafe {
            api.check((api.functions.ov_infer_request_get_output_tensor_by_index)(self.0.handle, index, &mut tensor))?;
            let tensor = Owned::new(api, tensor, api.functions.ov_tensor_free)?;
            api.check((api.functions.ov_tensor_get_element_type)(tensor.handle, &mut element))?;
            api.check((api.functions.ov_tensor_get_byte_size)(tensor.handle, &mut bytes))?;
            api.check((api.functions.ov_tensor_data)(tensor.handle, &mut data))?;
            api.check((api.functions.ov_tensor_get_shape)(tensor.handle, &mut shape))?;
            let rank = if shape.dims.is_null() { 0 } else { usize::try_from(shape.rank).unwrap_or(0) };
            let dims = (0..rank).map(|at| *shape.dims.add(at)).collect();
            api.check((api.functions.ov_shape_free)(&mut shape))?;
            if data.is_null() || !data.cast::<f32>().is_aligned() {
                return Err("OpenVINO gave an output without values".to_owned());
            }
            match Element(element) {
                Element::F32 => Ok(read(dims, slice::from_raw_parts(data.cast::<f32>(), bytes / size_of::<f32>()))),
                Element::F16 => {
                    let values = slice::from_raw_parts(data.cast::<half::f16>(), bytes / size_of::<half::f16>());
                    Ok(read(dims, &values.iter().map(|value| value.to_f32()).collect::<Vec<_>>()))
                }
                Element(other) => Err(format!("OpenVINO gave an output of the type {other}")),
            }
        }
    }
}
